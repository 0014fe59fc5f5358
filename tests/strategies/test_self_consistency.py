import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from searching import TASK, CrowdedEngine, Search, search, world

import strategies
from prm import FakePRM
from strategies.core.account import Budget
from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, Vote
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest, pieces


def run(engine: FakeEngine, prm: FakePRM | None = None, **options: Any) -> Search:
    return asyncio.run(search(strategies.get("self_consistency"), engine, prm, **options))


def answers(*texts: str) -> FakeEngine:
    def script(request: FakeRequest) -> str:
        return texts[request.index]

    return FakeEngine(script)


def majority_is_right(n: int, p: float) -> float:
    """P(more than half of n are right), n odd."""
    return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))


@pytest.mark.parametrize(("n", "p"), [(1, 0.6), (3, 0.6), (9, 0.6), (9, 0.4)])
def test_the_majority_is_right_as_often_as_the_binomial_says(n: int, p: float) -> None:
    engine, runs = FakeEngine(world(p, steps=2)), 400

    async def hits() -> int:
        entry, hits = strategies.get("self_consistency"), 0
        for seed in range(runs):
            task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
            hits += (await search(entry, engine, task=task, n=n)).final.best.answer == "1"
        return hits

    expected = majority_is_right(n, p)
    # A 99.9 % interval.
    assert abs(asyncio.run(hits()) - runs * expected) <= 3.29 * math.sqrt(runs * expected * (1 - expected))


def test_equal_answers_vote_together_and_those_without_do_not() -> None:
    engine = answers("no idea", "no idea", "no idea", r"\boxed{7}", r"\boxed{0.5}", r"\boxed{\frac{1}{2}}")
    final = run(engine, n=6).final
    assert final.best.text == r"\boxed{0.5}"
    assert final.selector == "majority"
    assert final.confidence == pytest.approx(2 / 3)
    assert final.votes == (Vote("0.5", 2, 2.0), Vote("7", 1, 1.0))
    assert [c.weight for c in final.candidates] == [0, 0, 0, 1, 1, 1]


def test_short_answers_have_no_advantage() -> None:
    engine = answers(r"\boxed{1}", "well, " * 50 + r"\boxed{2}", "well, " * 40 + r"\boxed{2}", r"\boxed{3}")
    assert run(engine, n=4).final.best.answer == "2"


def test_scores_are_asked_only_for_a_weighted_vote() -> None:
    prm = FakePRM(lambda question, steps: [0.9 if "2" in steps[-1] else 0.2])
    engine = answers(r"\boxed{1}", r"\boxed{1}", r"\boxed{2}")
    plain, weighted = run(engine, prm, n=3), run(engine, prm, n=3, selector="weighted")
    assert (plain.final.best.answer, plain.account.usage.prm_calls) == ("1", 0)
    assert (weighted.final.best.answer, weighted.account.usage.prm_calls) == ("2", 1)
    assert weighted.final.confidence == pytest.approx(0.9 / 1.3)


def test_it_does_not_choose_by_the_best_score() -> None:
    with pytest.raises(ValidationError):
        strategies.get("self_consistency").options.model_validate({"selector": "best"})


def in_turn(*texts: str) -> FakeEngine:
    """An engine that says the texts one after the other, whichever call asks."""
    left = iter(texts)
    return FakeEngine(lambda request: next(left))


def test_the_beta_stop_draws_no_more_than_it_needs() -> None:
    done = run(in_turn(*[r"\boxed{1}"] * 20), n=20, stopping="beta", parallel=1)
    assert (len(done.final.candidates), done.account.usage.samples) == (4, 4)
    assert done.account.stop_reason is None
    done = run(in_turn(r"\boxed{2}", *[r"\boxed{1}"] * 20), n=20, stopping="beta", parallel=1)
    assert len(done.final.candidates) == 7
    assert done.final.confidence == pytest.approx(6 / 7)
    done = run(in_turn(*[r"\boxed{1}"] * 20), n=20, stopping="beta", parallel=1, confidence=0.99)
    assert len(done.final.candidates) == 6


def test_without_agreement_all_are_drawn() -> None:
    done = run(in_turn(*[rf"\boxed{{{i}}}" for i in range(9)]), n=9, stopping="beta")
    assert [c.answer for c in done.final.candidates] == [str(i) for i in range(9)]


def test_the_stop_sees_what_began_first_and_not_what_ended_first() -> None:
    slow, quick, endless = "so " * 60 + r"\boxed{2}", r"\boxed{1}", "so " * 900
    engine = in_turn(*[slow] * 4, *[quick] * 6, *[endless] * 2)
    done = run(engine, n=12, stopping="beta", parallel=12)
    assert done.final.best.answer == "2"
    assert [c.text for c in done.final.candidates] == [slow] * 4
    assert done.account.usage.samples == 12
    assert done.account.usage.completion_tokens == engine.generated < 2 * 500
    assert engine.generated > 4 * 60 + 2 * 60
    assert engine.live == 0


def test_the_engine_stays_full_while_the_stop_waits() -> None:
    texts = iter([("so " * 30 * (i % 3)) + rf"\boxed{{{i}}}" for i in range(12)])
    engine = CrowdedEngine(lambda request: next(texts))
    run(engine, n=12, stopping="beta", parallel=5)
    assert engine.peak == 5


def esc(*answers: int | None, **options: Any) -> Search:
    texts = ["no idea" if answer is None else rf"\boxed{{{answer}}}" for answer in answers]
    return run(in_turn(*texts), n=len(texts), stopping="esc", parallel=1, **options)


def test_a_window_of_one_answer_stops_and_all_that_was_drawn_votes() -> None:
    done = esc(1, 1, 2, 1, 1, 1, 3, 3, 3, window=3)
    assert len(done.final.candidates) == 6
    assert done.final.votes == (Vote("1", 5, 5.0), Vote("2", 1, 1.0))


@pytest.mark.parametrize(
    "answers", [(2, 1, 1, 1, 2, 2), (1, 1, None, 1, 1, None), (None, None, None, None, None, None), (1, 1, 2, 1, 1)]
)
def test_windows_do_not_overlap_and_no_answer_is_no_agreement(answers: tuple[int | None, ...]) -> None:
    assert len(esc(*answers, window=3).final.candidates) == len(answers)


def test_a_window_is_five_samples_unless_said_otherwise() -> None:
    assert len(esc(*[1] * 12).final.candidates) == 5


@pytest.mark.parametrize("stopping", ["beta", "esc"])
def test_a_stop_leaves_as_many_samples_as_choices(stopping: str) -> None:
    entry, task = strategies.get("self_consistency"), replace(TASK, choices=7)
    engine = in_turn(*[r"\boxed{1}"] * 20)
    done = asyncio.run(search(entry, engine, task=task, n=20, stopping=stopping, window=3, parallel=1))
    assert len(done.final.candidates) == len(done.final.ranking) == {"beta": 7, "esc": 9}[stopping]


def test_a_failed_sample_does_not_stand_in_the_way_of_a_stop() -> None:
    left = iter([r"\boxed{1}", None, *[r"\boxed{1}"] * 9])

    def script(request: FakeRequest) -> str:
        text = next(left)
        if text is None:
            raise ConnectionError("lost")
        return text

    done = run(FakeEngine(script), n=10, stopping="beta", parallel=1)
    assert [c.sample.finish_reason for c in done.final.candidates] == ["eos", "error", "eos", "eos", "eos"]


def test_a_budget_ends_a_search_that_could_stop() -> None:
    async def main() -> Search:
        entry = strategies.get("self_consistency")
        engine = in_turn(*[rf"\boxed{{{i}}}" for i in range(9)])
        return await search(entry, engine, budget=Budget(max_samples=3), n=9, stopping="beta", parallel=2)

    done = asyncio.run(main())
    assert len(done.final.candidates) == 3
    assert done.account.stop_reason == "max_samples"


@pytest.mark.parametrize("stopping", ["none", "beta", "esc"])
def test_scores_weigh_what_was_drawn(stopping: str) -> None:
    prm = FakePRM(lambda question, steps: [0.9 if "2" in steps[-1] else 0.1], tokens=1)
    engine = in_turn(r"\boxed{2}", *[r"\boxed{1}"] * 9)
    done = run(engine, prm, n=7, stopping=stopping, selector="weighted", window=3, parallel=1)
    assert done.final.best.answer == "2"
    assert done.account.usage.prm_tokens == len(done.final.candidates) == {"none": 7, "beta": 7, "esc": 6}[stopping]


def likely(*samples: tuple[str, float]) -> FakeEngine:
    """An engine that gives each token of a text the same probability."""
    left = iter(samples)

    def script(request: FakeRequest) -> FakeReply:
        text, p = next(left)
        return FakeReply(text, dict.fromkeys(pieces(text), p))

    return FakeEngine(script)


@pytest.mark.parametrize("stopping", ["none", "esc"])
def test_logprobs_weigh_by_the_mean_whatever_the_length(stopping: str) -> None:
    engine = likely((r"\boxed{1}", 0.2), (r"\boxed{1}", 0.2), ("so " * 40 + r"\boxed{2}", 0.9))
    final = run(engine, n=3, selector="logprob", stopping=stopping).final
    assert final.best.answer == "2"
    assert [c.weight for c in final.candidates] == pytest.approx([0.2, 0.2, 0.9])
    assert final.confidence == pytest.approx(0.9 / 1.3)
    assert all(c.score is None for c in final.candidates)


@pytest.mark.parametrize(("asked", "tops"), [(None, []), (0, [0]), (1, [1])])
def test_only_the_logprobs_that_were_asked_for_come_back(asked: int | None, tops: list[int]) -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, logprobs=asked))
    entry = strategies.get("self_consistency")
    final = asyncio.run(search(entry, likely((r"\boxed{1}", 0.5)), task=task, n=1, selector="logprob")).final
    assert sorted({len(token.top) for token in final.best.sample.logprobs}) == tops
    assert final.best.weight == pytest.approx(0.5)


class Mute(FakeEngine):
    """Refuses logprobs."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if sampling.logprobs is not None:
            raise Refused("no logprobs here", "logprobs")
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                yield chunk


@pytest.mark.parametrize("stopping", ["none", "beta"])
def test_an_engine_without_logprobs_refuses_by_itself(stopping: str) -> None:
    assert run(Mute(world()), n=2, stopping=stopping).final.best.answer
    with pytest.raises(Refused, match="no logprobs here"):
        run(Mute(world()), n=2, stopping=stopping, selector="logprob")


@pytest.mark.parametrize("stopping", ["beta", "esc"])
def test_cancelling_a_search_that_could_stop_leaves_nothing_behind(stopping: str) -> None:
    async def main(turns: int) -> bool:
        engine = FakeEngine(world(), chunk_tokens=8)
        run = search(strategies.get("self_consistency"), engine, n=6, stopping=stopping, window=3)
        task = asyncio.create_task(run)
        for _ in range(turns):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert engine.live == 0
        return done

    with asyncio.Runner() as runner:
        turns = 0
        while not runner.run(main(turns)):
            turns += 1
    assert turns > 3


def test_a_deadline_ends_a_search_that_could_stop() -> None:
    async def main() -> Search:
        entry, engine = strategies.get("self_consistency"), FakeEngine(world(steps=400), token_s=0.005)
        return await search(entry, engine, budget=Budget(deadline_s=0.1), n=9, stopping="beta", parallel=2)

    done = asyncio.run(main())
    assert [c.sample.finish_reason for c in done.final.candidates] == ["budget"] * 2
    assert done.account.stop_reason == "deadline"


@pytest.mark.parametrize("stopping", ["beta", "esc"])
def test_the_same_seed_stops_at_the_same_place(stopping: str) -> None:
    def drawn(chunk_tokens: int) -> list[str]:
        engine = FakeEngine(world(p=0.7), chunk_tokens=chunk_tokens)
        return [c.text for c in run(engine, n=40, stopping=stopping).final.candidates]

    assert drawn(1) == drawn(5)
    assert 4 <= len(drawn(1)) < 40
