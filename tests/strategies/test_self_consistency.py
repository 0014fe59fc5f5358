import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from searching import TASK, Search, search, world

import strategies
from prm import FakePRM
from strategies.base import Vote
from tts_server.engines.fake import FakeEngine, FakeRequest


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
