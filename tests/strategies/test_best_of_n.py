import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, broken, search, world

import strategies
from prm import FakePRM
from strategies.core.account import Budget
from strategies.core.contracts import Incumbent, Progress, Task
from tts_server.engines.fake import FakeEngine, FakeRequest

PERFECT = FakePRM(lambda question, steps: [float("boxed{1}" in step) for step in steps])
"""Knows that 1 is right."""


def run(engine: FakeEngine, prm: FakePRM | None = PERFECT, *, task: Task = TASK, **options: Any) -> Search:
    budget: Budget | None = options.pop("budget", None)
    return asyncio.run(search(strategies.get("best_of_n"), engine, prm, task=task, budget=budget, **options))


def votes(*answers: int) -> FakeEngine:
    """An engine whose sample i gives answers[i]."""

    def script(request: FakeRequest) -> str:
        return rf"Sample {request.index}: \boxed{{{answers[request.index]}}}"

    return FakeEngine(script)


def within_interval(hits: int, runs: int, probability: float) -> bool:
    """Whether `hits` is in the 99.9 % interval of a binomial."""
    return abs(hits - runs * probability) <= 3.29 * math.sqrt(runs * probability * (1 - probability))


@pytest.mark.parametrize(("n", "p"), [(1, 0.3), (2, 0.3), (4, 0.3), (8, 0.1)])
def test_with_a_perfect_verifier_one_right_sample_is_enough(n: int, p: float) -> None:
    engine, runs = FakeEngine(world(p, steps=2)), 400

    async def hits() -> int:
        entry, hits = strategies.get("best_of_n"), 0
        for seed in range(runs):
            task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
            hits += (await search(entry, engine, PERFECT, task=task, n=n)).final.best.answer == "1"
        return hits

    assert within_interval(asyncio.run(hits()), runs, 1 - (1 - p) ** n)


def test_the_highest_score_wins_against_the_majority() -> None:
    done = run(votes(0, 0, 1, 0), n=4)
    assert done.final.best.answer == "1"
    assert done.final.selector == "best"
    assert done.final.confidence == done.final.best.score == 1.0
    assert [c.score for c in done.final.candidates] == [0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(("selector", "answer"), [("best", "2"), ("weighted", "3"), ("majority", "1")])
def test_each_selector_chooses_its_own(selector: str, answer: str) -> None:
    scores = {"1": 0.1, "2": 0.9, "3": 0.6}
    prm = FakePRM(lambda question, steps: [scores[steps[-1][-2]]])
    done = run(votes(1, 1, 1, 2, 3, 3), prm, n=6, selector=selector)
    assert done.final.best.answer == answer
    assert done.account.usage.prm_calls == (selector != "majority")


@pytest.mark.parametrize(("aggregation", "answer"), [("last", "1"), ("min", "0")])
def test_the_aggregation_decides_what_is_highest(aggregation: str, answer: str) -> None:
    def script(request: FakeRequest) -> str:
        return ["bad\n\n\\boxed{1}", "fair\n\n\\boxed{0}"][request.index]

    worth = {"bad": 0.1, "fair": 0.6, "\\boxed{1}": 0.9, "\\boxed{0}": 0.5}
    prm = FakePRM(lambda question, steps: [worth[step] for step in steps])
    assert run(FakeEngine(script), prm, n=2, aggregation=aggregation).final.best.answer == answer


def test_the_majority_leads_until_the_scores_are_there() -> None:
    done = run(votes(0, 0, 1), n=3)
    incumbents = [event.candidate.answer for event in done.events if isinstance(event, Incumbent)]
    assert incumbents == ["0"]
    assert done.final.best.answer == "1"
    assert Progress("3 candidates are scored by fake") in done.events


def test_without_a_budget_for_scores_the_majority_decides() -> None:
    done = run(votes(0, 0, 1), n=3, budget=Budget(max_prm_tokens=0))
    assert done.final.best.answer == "0"
    assert done.account.stop_reason == "max_prm_tokens"
    assert any(isinstance(event, Progress) and "majority decides" in event.text for event in done.events)


def test_scores_are_paid_and_all_samples_are_one_call() -> None:
    done = run(votes(0, 1, 1), FakePRM(tokens=7), n=3)
    usage = done.account.usage
    assert (usage.samples, usage.prm_calls, usage.prm_tokens) == (3, 1, 21)
    assert usage.completion_tokens == sum(c.sample.completion_tokens for c in done.final.candidates)


def test_a_failed_sample_is_neither_scored_nor_chosen() -> None:
    prm = FakePRM(lambda question, steps: [0.0] * len(steps), tokens=1)
    done = run(FakeEngine(broken(world(), 0, 2)), prm, n=4)
    assert [c.step_scores is None for c in done.final.candidates] == [True, False, True, False]
    assert set(done.final.ranking[:2]) == {1, 3}
    assert done.account.usage.prm_tokens == 2


def test_choices_are_distinct_answers_first() -> None:
    done = run(votes(0, 0, 1), n=3, task=replace(TASK, choices=2))
    assert [done.final.candidates[i].answer for i in done.final.ranking[:2]] == ["1", "0"]
