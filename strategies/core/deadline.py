"""The one place that ends what a search waits for when its answer is due."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

TICK_S = 0.002
"""Seconds by which an event loop's timer may be early."""


class Late(Exception):
    """What was waited for did not come in time, and is cancelled."""


class Deadline:
    """When one search must have answered.

    Args:
        limit_s: seconds from the start; None is no limit.
        started: `time.monotonic()` at the start.
    """

    __slots__ = ("_rang", "_timers", "ends_at", "started")

    def __init__(self, limit_s: float | None, started: float) -> None:
        self.started = started
        self.ends_at = None if limit_s is None else started + limit_s
        """By the same clock; None is never."""
        self._rang = False
        """Whether a timer has ended a wait: that of a busy event loop is early by our clock."""
        self._timers: dict[asyncio.Timeout, float] = {}
        """Those of the waits under way, with the seconds behind the deadline at which each ends."""

    @property
    def seconds_left(self) -> float | None:
        """None is no limit."""
        if self.ends_at is None:
            return None
        return 0.0 if self._rang else max(0.0, self.ends_at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.ends_at is not None and (self._rang or time.monotonic() >= self.ends_at)

    @property
    def ends_now(self) -> bool:
        """Whether what ends now may have been ended by the deadline, whose timers may be early."""
        left = self.seconds_left
        return left is not None and left <= TICK_S

    def bring_forward(self, seconds: float) -> None:
        """Ends in so many seconds, where it is further away; the waits under way end accordingly."""
        ends_at = time.monotonic() + seconds
        if self.ends_at is None or ends_at < self.ends_at:
            self.ends_at = ends_at
            for timer, after_s in self._timers.items():
                timer.reschedule(ends_at + after_s)

    async def within(self, work: Awaitable[T], after_s: float = 0.0) -> T:
        """Waits for `work` until so many seconds behind the deadline; before it, if they are negative.

        Raises:
            Late: it did not come in time.
        """
        try:
            async with asyncio.timeout_at(None if self.ends_at is None else self.ends_at + after_s) as timer:
                self._timers[timer] = after_s
                try:
                    return await work
                finally:
                    del self._timers[timer]
        except TimeoutError:
            self._rang = self._rang or (timer.expired() and after_s >= 0)
            if timer.expired() or self.passed:
                raise Late from None
            raise
