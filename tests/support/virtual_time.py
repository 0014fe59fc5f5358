"""A clock that jumps: to wait takes no time, and as long as it says by the clock that the code under test reads."""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """What it would have waited passes at once, but where a thread works."""

    now = 1000.0
    working = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.working:
            return super().select(None if timeout is None else min(timeout, 0.01))
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._virtual = selector

    def run_in_executor(self, *args: Any) -> asyncio.Future[Any]:
        self._virtual.working += 1
        future = super().run_in_executor(*args)
        future.add_done_callback(lambda _: self._done())
        return future

    def _done(self) -> None:
        self._virtual.working -= 1


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with a loop and a `time.monotonic` whose seconds take none."""
    selector = _Selector()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: selector.now)
        with asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner:
            return runner.run(main)
