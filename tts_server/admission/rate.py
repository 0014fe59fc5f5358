"""How fast something ends, and so how long whoever waits for it is told to wait."""

import math
import time
from collections.abc import Callable

Clock = Callable[[], float]

_WINDOW_S = 10.0
"""Over which a rate is averaged."""
_UNKNOWN_S, _LEAST_S, _MOST_S = 5, 1, 60
"""What a client is told to wait where nothing has ended yet, and in any case."""


class Rate:
    """How often something has happened lately, as an exponentially weighted mean."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = self._at = clock()
        self._count = 0.0

    def note(self, count: int = 1) -> None:
        now = self._clock()
        self._count = self._count * math.exp((self._at - now) / _WINDOW_S) + count
        self._at = now

    @property
    def per_s(self) -> float:
        now = self._clock()
        # What came before the first look is not known to be nothing.
        seen_s = _WINDOW_S * -math.expm1((self._began - now) / _WINDOW_S)
        return self._count * math.exp((self._at - now) / _WINDOW_S) / seen_s if seen_s > 0 else 0.0

    def retry_after_s(self, count: int) -> int:
        """Seconds until it will have happened so often, bounded to what a client can be told."""
        rate = self.per_s
        return max(_LEAST_S, math.ceil(min(_MOST_S, count / rate))) if rate else _UNKNOWN_S
