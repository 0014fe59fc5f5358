"""What a search waits for is ended at its deadline, and nowhere else."""

import asyncio
import time
from collections.abc import Awaitable

import pytest
from virtual_time import in_virtual_time

from strategies.core.deadline import TICK_S, Deadline, Late


async def waited(deadline: Deadline, work: Awaitable[object], after_s: float = 0.0) -> float:
    """When the wait for `work` is given up, in seconds from now."""
    began = time.monotonic()
    with pytest.raises(Late):
        await deadline.within(work, after_s)
    return time.monotonic() - began


@pytest.mark.parametrize("after_s", [0.0, 0.5, -0.5])
def test_a_wait_ends_as_far_from_the_deadline_as_it_asks(after_s: float) -> None:
    async def main() -> tuple[float, bool]:
        deadline = Deadline(2.0, time.monotonic())
        return await waited(deadline, asyncio.sleep(60), after_s), deadline.passed

    seconds, passed = in_virtual_time(main())
    assert seconds == pytest.approx(2.0 + after_s)
    assert passed == (after_s >= 0)


def test_what_comes_in_time_is_given_and_what_fails_fails() -> None:
    async def fails() -> None:
        raise TimeoutError("its own")

    async def main() -> None:
        for limit_s in (None, 2.0):
            deadline = Deadline(limit_s, time.monotonic())
            assert await deadline.within(asyncio.sleep(1, "done")) == "done"
            with pytest.raises(TimeoutError, match="its own"):
                await deadline.within(fails())
            assert not deadline.passed

    in_virtual_time(main())


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_waits_under_way_end_with_a_deadline_that_is_brought_forward(limit_s: float | None) -> None:
    async def main() -> list[float]:
        deadline = Deadline(limit_s, time.monotonic())
        waits = [asyncio.create_task(waited(deadline, asyncio.sleep(3600), after_s)) for after_s in (0.0, 0.5)]
        await asyncio.sleep(1)
        deadline.bring_forward(2)
        deadline.bring_forward(30)
        return await asyncio.gather(*waits)

    assert in_virtual_time(main()) == [pytest.approx(3.0), pytest.approx(3.5)]


def test_it_says_what_is_left() -> None:
    async def main() -> None:
        never, soon = Deadline(None, time.monotonic()), Deadline(2.0, time.monotonic())
        assert (never.seconds_left, never.passed, never.ends_now) == (None, False, False)
        await asyncio.sleep(2.0 - TICK_S / 2)
        assert soon.seconds_left == pytest.approx(TICK_S / 2)
        assert (soon.passed, soon.ends_now) == (False, True)
        await asyncio.sleep(1)
        assert (soon.seconds_left, soon.passed) == (0.0, True)

    in_virtual_time(main())
