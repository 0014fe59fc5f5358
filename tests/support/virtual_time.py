"""A clock that jumps: to wait takes no time, and as long as it says by the clock that the code under test reads."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but what other threads do; what it would have waited passes at once."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with a loop and a `time.monotonic` whose seconds take none."""
    selector = _Selector()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: selector.now)
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            return runner.run(main)
