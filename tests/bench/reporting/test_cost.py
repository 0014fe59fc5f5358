"""Costs, by hand."""

import json
from pathlib import Path

import pytest

from bench.reporting.cost import Prices, Quantiles, cost_of, parameters_of, read_prices
from bench.stored.manifest import Manifest, Server, Session, Settings
from bench.stored.records import Record, RecordError, Usage


def record(number: int, finished_s: int) -> Record:
    usage = Usage(
        prompt_tokens=10,
        engine_prompt_tokens=40,
        cached_prompt_tokens=30,
        completion_tokens=100 * number,
        prm_tokens=7,
        prm_calls=1,
        samples=4,
    )
    finished = f"2026-01-01T00:00:{finished_s:02}.000+00:00"
    return Record(id=str(number), gold="1", samples=(), usage=usage, finished=finished, latency_s=float(number))


RECORDS = [record(1, 5), record(2, 10), record(3, 40)]


def session(started_s: int, ended_s: int | None) -> Session:
    ended = None if ended_s is None else f"2026-01-01T00:00:{ended_s:02}.000+00:00"
    return Session(f"2026-01-01T00:00:{started_s:02}.000+00:00", "u", "c", None, "m", "v", ended)


def manifest(*sessions: Session, model: str = "org/some-0.5b-chat", prm: str | None = "judge") -> Manifest:
    settings = Settings("t", "test", "f", "0", "boxed", (), "alias")
    return Manifest(settings, Server(model=model, prm=prm), sessions=sessions)


def test_tokens_are_summed_and_cached_ones_stand_apart() -> None:
    cost = cost_of(RECORDS)
    assert (cost.completion_tokens, cost.prompt_tokens, cost.cached_tokens, cost.prm_tokens, cost.samples) == (
        600,
        30,
        90,
        21,
        12,
    )
    assert (cost.wall_s, cost.requests_s, cost.flops, cost.dollars, cost.ttft) == (None,) * 5
    assert cost.latency == Quantiles(mean=2.0, p50=2.0, p95=3.0)


def test_the_time_between_sessions_is_not_counted_and_a_killed_one_lasts_until_its_last_record() -> None:
    cost = cost_of(RECORDS, manifest(session(0, None), session(30, 42)))
    assert cost.wall_s == 10 + 12
    assert cost.requests_s == 3 / 22
    assert cost.tokens_s == 600 / 22


def test_flops_are_two_a_weight_and_token_of_the_model_and_its_judge() -> None:
    whole = manifest(session(0, 50))
    assert cost_of(RECORDS, whole).flops == 2 * 0.5e9 * (600 + 30 + 21)
    assert cost_of(RECORDS, whole, parameters=1e6).flops == 2 * 1e6 * (600 + 30 + 21)
    assert cost_of(RECORDS, whole, parameters=1e6, prm_parameters=2e6).flops == 2 * 1e6 * 630 + 2 * 2e6 * 21
    # Of another reward model nobody knows the size.
    assert cost_of(RECORDS, manifest(session(0, 50), prm="math-shepherd")).flops is None


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("qwen2.5-coder-0.5b-instruct", 0.5e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("meta/Llama-3.1-8B", 8e9),
        ("model_7B_chat", 7e9),
        ("mixtral-8x7b", None),
        ("gpt-5", None),
        ("v1.5beta", None),
    ],
)
def test_a_models_size_is_read_from_its_name(name: str, weights: float | None) -> None:
    assert parameters_of(manifest(model=name)) == weights


def test_a_sum_with_an_unknown_part_is_unknown_and_a_problem_without_answer_has_no_part() -> None:
    silent = Record(id="4", gold="1", samples=())
    assert cost_of([*RECORDS, silent]).completion_tokens is None
    failed = Record(id="4", gold="1", samples=(), error="too long")
    cost = cost_of([*RECORDS, failed])
    assert (cost.problems, cost.completion_tokens) == (4, 600)


def test_dollars_are_those_of_tokens_and_time() -> None:
    prices = Prices(prompt=1, cached=0.1, completion=10, prm=2, hour=3.6)
    cost = cost_of(RECORDS, manifest(session(0, 50)), prices=prices)
    assert cost.dollars == pytest.approx((30 * 1 + 90 * 0.1 + 600 * 10 + 21 * 2) / 1e6 + 50 * 0.001)
    # Without the time, an hour's price cannot be charged.
    assert cost_of(RECORDS, prices=prices).dollars is None
    assert cost_of(RECORDS, prices=Prices(completion=1)).dollars == pytest.approx(0.0006)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"completions": 1}', "completions: Extra inputs are not permitted; it may name prompt, cached, completion"),
        ('{"prompt": -1}', "prompt: Input should be greater than or equal to 0"),
        ("[]", "should be an object"),
        ("{", "is no JSON"),
    ],
)
def test_a_price_table_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(RecordError, match=r"prices\.json: ") as error:
        read_prices(file)
    assert said in str(error.value)
    file.write_text(json.dumps({"prompt": 0.5}))
    assert read_prices(file) == Prices(prompt=0.5)
