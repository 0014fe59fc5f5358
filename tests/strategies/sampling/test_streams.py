import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from patience import NEVER_S
from searching import TASK, BreakingEngine, world

from strategies.core.account import Account, Budget
from strategies.core.metered import MeteredEngine
from strategies.sampling.draw import TEMPERATURE
from strategies.sampling.streams import attempt, in_order, sub_seed
from tts_server.engines.fake import FakeEngine, FakeRequest


def test_results_come_in_the_order_of_beginning_and_never_too_many_run() -> None:
    running: set[int] = set()
    peaks: list[int] = []
    ended: list[int] = []

    async def begin(index: int) -> int:
        running.add(index)
        peaks.append(len(running))
        for _ in range(20 - 3 * index):
            await asyncio.sleep(0)
        running.discard(index)
        ended.append(index)
        return index

    async def main() -> list[int]:
        async with aclosing(in_order(begin, 6, 3)) as results:
            return [result async for result in results]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4, 5]
    assert ended != sorted(ended)
    assert max(peaks) == 3


def test_the_next_begins_as_soon_as_any_has_ended() -> None:
    begun: list[int] = []
    gate = asyncio.Event()

    async def begin(index: int) -> None:
        begun.append(index)
        if index == 0:
            await gate.wait()
        if index == 3:
            gate.set()

    async def main() -> None:
        async with aclosing(in_order(begin, 5, 2)) as results, asyncio.timeout(NEVER_S):
            await anext(results)

    asyncio.run(main())
    assert begun[:4] == [0, 1, 2, 3]


def test_closing_waits_until_everything_has_stopped() -> None:
    stopped: list[int] = []

    async def begin(index: int) -> int:
        if index == 0:
            return index
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            stopped.append(index)
        return index

    async def main() -> None:
        async with aclosing(in_order(begin, 9, 4)) as results:
            assert await anext(results) == 0
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert sorted(stopped) == [1, 2, 3]


def test_what_fails_is_raised() -> None:
    async def begin(index: int) -> int:
        raise ValueError(f"{index} is wrong")

    async def main() -> None:
        async with aclosing(in_order(begin, 3, 2)) as results:
            await anext(results)

    with pytest.raises(ValueError, match="0 is wrong"):
        asyncio.run(main())


def test_each_attempt_has_its_own_seed_and_a_temperature() -> None:
    seen: list[FakeRequest] = []

    def script(request: FakeRequest) -> str:
        seen.append(request)
        return "x"

    async def main() -> None:
        for index in (0, 1, 0):
            sample = await attempt(TASK, FakeEngine(script), index)
            assert {chunk.index for chunk in sample.chunks} == {index}
        await attempt(replace(TASK, sampling=replace(TASK.sampling, seed=None)), FakeEngine(script), 0)

    asyncio.run(main())
    first, second, again, unseeded = (request.sampling for request in seen)
    assert first == again == replace(TASK.sampling, seed=sub_seed(7, 0), temperature=TEMPERATURE)
    assert first.seed != second.seed
    assert unseeded.seed is None


def test_an_attempt_that_is_given_up_is_closed_and_paid() -> None:
    engine, account = FakeEngine(lambda request: "one two three four"), Account()
    left = iter([True, True, False])
    sample = asyncio.run(attempt(TASK, MeteredEngine(engine, account), 5, lambda _: not next(left)))
    assert (sample.text, sample.finish_reason, engine.live) == ("one two three", None, 0)
    assert account.usage.completion_tokens == engine.generated == 3


def test_a_failure_is_recorded() -> None:
    def script(request: FakeRequest) -> str:
        raise ConnectionError("gone")

    lost = asyncio.run(attempt(TASK, FakeEngine(script), 2))
    assert (lost.finish_reason, str(lost.chunks[0].error), lost.chunks[0].index) == ("error", "gone", 2)
    assert asyncio.run(attempt(TASK, BreakingEngine(world()), 0)).finished


def test_without_a_budget_there_is_nothing() -> None:
    engine = MeteredEngine(FakeEngine(world()), Account(Budget(max_samples=0)))
    assert asyncio.run(attempt(TASK, engine, 0)).chunks == []


def test_seeds_differ_by_place() -> None:
    seeds = [sub_seed(7), sub_seed(7, 0), sub_seed(7, 1), sub_seed(8, 0), sub_seed(7, 0, 1), sub_seed(7, "order")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
