"""A run whose problems share one budget: what it spends, on which problems, and that it goes on where it was."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from bench.running import ask as asking
from bench.running.ask import RunError
from bench.running.runner import Job, Outcome, run
from bench.running.shared_run import PARTS
from bench.running.shared_terms import POLICY, Terms
from bench.stored.manifest import Settings
from bench.stored.records import Record, read_records
from bench.tasks import Problem, prompt
from prm import FakePRM
from strategies.allocation.policy_table import STOP, Cell, Pilot, Policy, Seconds, Tokens
from strategies.core.contracts import Selector
from tts_server.engines.fake import FakeEngine, FakeRequest

PROBLEMS = tuple(Problem(f"p/{i}", f"What is {i} + 1?", str(i + 1)) for i in range(8))
SAMPLE = 12
"""Tokens that a sample can have; it has fewer."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between attempts."""
    monkeypatch.setattr(asking, "FIRST_S", 0.01)
    monkeypatch.setattr(asking, "CAP_S", 0.02)


@dataclass
class Sums:
    """Answers the problems: even ones always right, odd ones as often wrong, each time differently."""

    drawn: Counter[str] = field(default_factory=Counter)
    """Samples by problem."""
    seeds: set[tuple[str, int | None, int]] = field(default_factory=set)
    broken: frozenset[str] = frozenset()

    def __call__(self, request: FakeRequest) -> str:
        number = int(request.text.rpartition("What is ")[2].split()[0])
        name = f"p/{number}"
        if name in self.broken:
            raise RuntimeError("the engine broke")
        self.drawn[name] += 1
        self.seeds.add((name, request.sampling.seed, request.index))
        wrong = number % 2 and request.rng.random() < 0.5
        return f"It is \\boxed{{{number + 1 + (wrong and 10 + request.rng.randrange(4))}}}."


class Watch:
    """What a run showed."""

    def __init__(self, stop: Callable[[], None] | None = None) -> None:
        self.said: list[str] = []

    def begin(self, done: Sequence[Record], problems: int) -> None: ...

    def add(self, record: Record) -> None: ...

    def say(self, line: str) -> None:
        self.said.append(line)


def job(out: Path, tokens: int, **fields: Any) -> Job:
    policy, selector = fields.pop("policy", None), fields.pop("selector", "majority")
    strategy = "self_consistency" if selector == "majority" else "best_of_n"
    settings = Settings(
        task="sums",
        split="all",
        source="sums.jsonl",
        data_sha256="00",
        prompt="boxed",
        messages=tuple(prompt("boxed").messages("{question}")),
        model="",
        strategy=strategy,
        options={"n": 16, "selector": selector},
        sampling={"temperature": 0.7, "max_tokens": SAMPLE, "seed": 1},
        concurrency=3,
        total_tokens=tokens,
    )
    terms = Terms(tokens, 16, SAMPLE, selector, policy)
    given = {"problems": PROBLEMS, "prompt": prompt("boxed"), "command": "tts-bench run", "patience_s": 1.0, **fields}
    return Job(settings, out=out, url="", terms=terms, **given)


def ran(job: Job, script: Sums | None = None, show: Watch | None = None) -> Outcome:
    async def main() -> Outcome:
        async with serving(FakeEngine(script or Sums()), [FakePRM()]) as client:
            return await run(replace(job, url=str(client.base_url)), show or Watch())

    return asyncio.run(main())


def spent(out: Path) -> int:
    return sum((record.usage.completion_tokens or 0) + (record.usage.prm_tokens or 0) for record in read_records(out))


def test_the_budget_is_kept_and_goes_where_the_votes_differ(tmp_path: Path) -> None:
    sums, show, tokens = Sums(), Watch(), 8 * 4 * SAMPLE + 250
    outcome = ran(job(tmp_path, tokens), sums, show)
    assert outcome.missing == 0
    # A rest that can turn no vote any more is kept.
    assert tokens - 6 * SAMPLE < spent(tmp_path) <= tokens
    records = {record.id: record for record in read_records(tmp_path)}
    assert list(records) == [problem.id for problem in PROBLEMS]
    assert all(sums.drawn[name] == len(record.samples) >= 4 for name, record in records.items())
    certain = sum(sums.drawn[problem.id] for problem in PROBLEMS[::2])
    assert sum(sums.drawn.values()) - certain > certain
    assert any("left to be spread" in line for line in show.said)
    for record in records.values():
        assert record.usage.samples == len(record.samples)
        assert record.usage.completion_tokens == sum(s.completion_tokens or 0 for s in record.samples)
        assert record.chosen is not None
        assert record.answer == record.samples[record.chosen].answer
        assert record.answer == Counter(s.answer for s in record.samples).most_common(1)[0][0]
        assert record.correct == (record.answer == record.gold)
        assert record.latency_s is not None


def test_no_sample_is_drawn_twice(tmp_path: Path) -> None:
    sums = Sums()
    ran(job(tmp_path, 1500), sums)
    assert len(sums.seeds) == sum(sums.drawn.values())


@pytest.mark.parametrize("tokens", [1, 50])
def test_whatever_the_budget_every_problem_has_an_answer(tmp_path: Path, tokens: int) -> None:
    sums = Sums()
    outcome = ran(job(tmp_path, tokens), sums)
    assert outcome.missing == 0
    assert all(len(record.samples) >= 1 for record in outcome.records)
    assert spent(tmp_path) <= tokens + len(PROBLEMS) * SAMPLE


def test_no_problem_gets_more_samples_than_it_may_have(tmp_path: Path) -> None:
    sums = Sums()
    ran(job(tmp_path, 100_000), sums)
    assert max(sums.drawn.values()) == 16


@pytest.mark.parametrize("selector", ["best", "weighted"])
def test_the_reward_model_s_tokens_are_paid_from_the_same_budget(tmp_path: Path, selector: Selector) -> None:
    tokens = 3000
    outcome = ran(job(tmp_path, tokens, selector=selector))
    assert outcome.missing == 0
    assert all(record.usage.prm_tokens for record in outcome.records)
    assert all(s.score is not None for record in outcome.records for s in record.samples)
    assert spent(tmp_path) <= tokens


def test_a_run_that_was_stopped_asks_for_nothing_again(tmp_path: Path) -> None:
    tokens, whole = 900, Sums()
    ran(job(tmp_path / "whole", tokens), whole)

    class Stopping(Watch):
        """Loses the server when the pilots are done."""

        def say(self, line: str) -> None:
            super().say(line)
            if "left to be spread" in line:
                raise RunError("stopped")

    first, second = Sums(), Sums()
    with pytest.raises(RunError, match="stopped"):
        ran(job(tmp_path / "parts", tokens), first, Stopping())
    assert not (tmp_path / "parts" / "records.jsonl").read_bytes()
    assert len(read_records(tmp_path / "parts" / PARTS)) == len(PROBLEMS)
    with pytest.raises(RunError, match="holds the samples of a run that was not ended; go on with --resume"):
        ran(job(tmp_path / "parts", tokens))
    with pytest.raises(RunError, match="total_tokens: 900, 901"):
        ran(job(tmp_path / "parts", 901, resume=True))
    outcome = ran(job(tmp_path / "parts", tokens, resume=True), second)
    assert outcome.missing == 0
    assert not first.seeds & second.seeds
    assert spent(tmp_path / "parts") <= tokens
    assert first.drawn + second.drawn == Counter({r.id: len(r.samples) for r in outcome.records})


def test_a_finished_run_is_not_drawn_again(tmp_path: Path) -> None:
    sums = Sums()
    ran(job(tmp_path, 900))
    assert ran(job(tmp_path, 900, resume=True), sums).missing == 0
    assert not sums.drawn


def test_a_problem_without_an_answer_is_left_for_another_session(tmp_path: Path) -> None:
    show = Watch()
    outcome = ran(job(tmp_path, 900), Sums(broken=frozenset({"p/3"})), show)
    assert (outcome.missing, list(outcome.failed)) == (1, ["p/3"])
    assert any("no answer to p/3" in line for line in show.said)
    assert len(outcome.records) == 7
    again = Sums()
    assert ran(job(tmp_path, 900, resume=True), again).missing == 0
    assert set(again.drawn) == {"p/3"}
    assert spent(tmp_path) <= 900 + SAMPLE


def test_a_server_that_answers_nothing_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="problems in a row got no answer"):
        ran(job(tmp_path, 900), Sums(broken=frozenset(problem.id for problem in PROBLEMS)))


def policy(**fields: Any) -> Policy:
    """One in which the hardest gain by sixteen samples, and others by none."""
    none = Tokens(0, 0, 0)

    def cell(place: int, strategy: str, accuracy: float, **options: Any) -> Cell:
        return Cell(place, strategy, options, accuracy, accuracy, accuracy, 9, none, none, Seconds(0, 0))

    system = prompt("boxed").messages("")[0]["content"]
    cells = (
        cell(0, STOP, 0.1),
        cell(0, "self_consistency", 0.3, n=16),
        cell(1, STOP, 0.9),
        cell(1, "best_of_n", 0.95, n=8, selector="best"),
    )
    given: dict[str, Any] = {"model": "fake", "prm": None, "prompt": system, "pilot": Pilot(4), "cells": cells}
    given |= {
        "created": "2026-01-01T00:00:00",
        "source": "made up",
        "difficulty": None,
        "edges": (0.5,),
        "agreed": None,
    }
    return Policy(**{**given, **fields})


def test_with_a_policy_its_table_says_what_samples_gain(tmp_path: Path) -> None:
    sums = Sums()
    outcome = ran(job(tmp_path, 100_000, policy=policy()), sums)
    assert outcome.missing == 0
    assert (tmp_path / POLICY).exists()
    # The square of the votes' share tells the difficulty; a best of n is no majority of more.
    assert all(sums.drawn[problem.id] == 4 for problem in PROBLEMS[::2])
    assert {sums.drawn[problem.id] for problem in PROBLEMS[1::2]} <= {4, 16}
    assert 16 in sums.drawn.values()


def test_a_policy_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--policy: the policy was fitted for the model 'other', not 'fake'"):
        ran(job(tmp_path, 900, policy=policy(model="other")))
