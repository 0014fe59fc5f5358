"""Concurrent work of one request."""

import asyncio

import pytest

from strategies.core.concurrency import pooled


def test_results_keep_the_order_and_the_limit_holds() -> None:
    running = most = 0

    async def slow_if_early(i: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20 - i):
            await asyncio.sleep(0)
        running -= 1
        return i * i

    assert asyncio.run(pooled(slow_if_early, range(20), 3)) == [i * i for i in range(20)]
    assert most == 3


def test_no_items_are_no_calls() -> None:
    async def never(item: str) -> str:
        raise AssertionError(item)

    assert asyncio.run(pooled(never, [], 3)) == []


def test_the_first_failure_is_raised_as_it_is_and_ends_the_rest() -> None:
    cancelled: list[int] = []
    begun: list[int] = []

    async def call(i: int) -> None:
        begun.append(i)
        if i == 1:
            raise ValueError("one") from KeyError("cause")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(i)
            raise

    with pytest.raises(ValueError, match="one") as caught:
        asyncio.run(pooled(call, range(10), 3))
    assert isinstance(caught.value.__cause__, KeyError)
    assert sorted(cancelled) == [0, 2]
    assert begun == [0, 1, 2]
