"""What was drawn: pilots and waves, their votes and their costs."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, broken, world

from prm import FakePRM
from strategies.allocation.pilot import Evidence
from strategies.allocation.replay import ReplayPRM
from strategies.core.account import Account, Budget
from strategies.core.contracts import Chunk, Sample
from strategies.core.metered import MeteredEngine, MeteredPRM
from tts_server.engines.fake import FakeEngine, FakeRequest


def evidence(engine: Any = None, budget: Budget | None = None, **fields: Any) -> Evidence:
    account = Account(budget or Budget())
    return Evidence(TASK, MeteredEngine(engine or FakeEngine(world()), account), account, **fields)


async def drawn(given: Evidence, *sizes: int) -> Evidence:
    for n in sizes:
        async with aclosing(given.draw(n)) as progress:
            assert [line async for line in progress]
    return given


def test_each_draw_has_its_own_seed_and_the_first_is_the_pilot() -> None:
    async def main() -> None:
        given = await drawn(evidence(), 4, 4)
        again = await drawn(evidence(), 4, 4)
        texts = [sample.text for sample in given.samples]
        assert texts == [sample.text for sample in again.samples]
        assert texts[:4] != texts[4:]
        assert (given.pilot.samples, given.pilot.steps) == (4, 3.0)
        assert given.drawn.samples == 8
        assert given.drawn.tokens == given.account.usage.completion_tokens == 2 * given.pilot.tokens
        assert set(given.votes) <= {"0", "1"}
        assert not given.short

    asyncio.run(main())


def test_a_pilot_that_fails_fails_and_a_later_draw_is_noted() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionError):
            await drawn(evidence(FakeEngine(broken(world(), *range(4)))), 4)
        calls = 0

        def later(request: FakeRequest) -> Any:
            nonlocal calls
            calls += 1
            return (world() if calls <= 4 else broken(world(), *range(4)))(request)

        given = await drawn(evidence(FakeEngine(later)), 4)
        async with aclosing(given.draw(4)) as progress:
            assert [line async for line in progress] == []
        assert given.short
        assert given.candidates[-1].sample.finish_reason == "error"
        assert len(given.votes) == 4

    asyncio.run(main())


def test_a_draw_that_the_budget_shortens_is_short() -> None:
    async def main() -> None:
        assert (await drawn(evidence(budget=Budget(max_samples=3)), 4)).short
        assert (await drawn(evidence(budget=Budget(max_tokens=20)), 4)).short
        given = evidence(budget=Budget(max_samples=0))
        async with aclosing(given.draw(4)) as progress:
            assert [line async for line in progress] == []
        assert (given.short, given.pilot.tokens, len(given.candidates)) == (True, 0, 1)

    asyncio.run(main())


def test_scores_are_part_of_the_pilot_s_cost() -> None:
    async def main() -> None:
        given = await drawn(evidence(), 4)
        prm = ReplayPRM(MeteredPRM(FakePRM(tokens=5), given.account))
        await given.score(prm, None)
        assert given.pilot.prm_tokens == given.account.usage.prm_tokens == 20
        assert all(attempt.score is not None for attempt in given.attempts)
        assert (await given.elect("best")).best.score == max(c.score or 0 for c in given.candidates)
        spent = await drawn(evidence(budget=Budget(max_prm_tokens=1)), 4)
        metered = MeteredPRM(FakePRM(tokens=5), spent.account)
        await spent.score(metered, None)
        before = spent.candidates
        await spent.score(metered, None)
        assert spent.candidates == before

    asyncio.run(main())


def test_logprobs_that_only_we_need_are_not_shown() -> None:
    async def main() -> None:
        given = await drawn(evidence(logprobs=True), 2)
        assert all(attempt.logprob is not None for attempt in given.attempts)
        assert all(sample.logprobs == () for sample in given.samples)
        asked = replace(TASK, sampling=replace(TASK.sampling, logprobs=1))
        told = await drawn(replace(evidence(logprobs=True), task=asked), 2)
        assert all(len(token.top) == 1 for sample in told.samples for token in sample.logprobs)
        assert all(sample.logprobs for sample in told.samples)

    asyncio.run(main())


def test_a_failure_is_a_candidate_without_a_vote() -> None:
    given = evidence()
    given.fail(ConnectionError("gone"))
    assert (given.votes, given.short) == ([], True)
    assert given.samples == [Sample([Chunk(0, finish_reason="error", error=given.samples[0].chunks[0].error)])]
