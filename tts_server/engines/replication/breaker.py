"""Whether something that fails is asked: not while it keeps failing, nor while it asks to be left alone. Pure."""

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]
"""`closed`: it is asked. `open`: it failed, and is left alone. `half_open`: it may be tried."""


class Breaker:
    """Opens after failures in a row; after a pause it may be tried, and closes if that went well.

    Args:
        failures: in a row, that open it.
        pause_s: until the first try; doubles with each that fails.
        longest_pause_s: beyond which it does not grow.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        pause_s: float = 5.0,
        longest_pause_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._first_pause_s = self._pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self._clock = clock
        self._failures = 0
        self._opened_until: float | None = None
        self._rests_until = clock()

    @property
    def state(self) -> State:
        if self._opened_until is None:
            return "closed"
        return "open" if self._clock() < self._opened_until else "half_open"

    @property
    def admits(self) -> bool:
        """Whether a request may be sent there now."""
        return self.state == "closed" and not self.rest_s

    @property
    def rest_s(self) -> float:
        """How long it still wants to be left alone."""
        return max(0.0, self._rests_until - self._clock())

    def succeed(self) -> None:
        """A request was answered."""
        self._failures = 0

    def fail(self) -> None:
        """A request was not answered, or a try was not."""
        self._failures += 1
        state = self.state
        if state == "half_open" or (state == "closed" and self._failures >= self._limit):
            self.open()

    def open(self) -> None:
        """Leaves it alone for a pause."""
        self._opened_until = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._longest_pause_s)

    def close(self) -> None:
        """A try went well."""
        self._opened_until = None
        self._failures = 0
        self._pause_s = self._first_pause_s

    def rest(self, wait_s: float) -> None:
        """Leaves it alone for so long, as it asked."""
        self._rests_until = max(self._rests_until, self._clock() + wait_s)
