"""What the requests of one API key may ask for together: how many, how many at once, and how many tokens they cost."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tts_server.config import KeyLimits
from tts_server.errors import TooManyRequests

Clock = Callable[[], float]

QUIET = ("/v1/files", "/v1/batches", "/v1/traces")
"""What computes nothing, whatever its method."""

_BUSY_S = 1
"""What a client is told to wait for one of its own requests to end."""


class Bucket:
    """An amount that comes back evenly: `limit` of it in `period_s` seconds, and never more than `limit` at once.

    What is taken may be more than there is; the debt is paid back first.
    """

    def __init__(self, limit: int, period_s: float, clock: Clock = time.monotonic) -> None:
        self.limit = limit
        self._per_s = limit / period_s
        self._clock = clock
        self._left = float(limit)
        self._at = clock()

    @property
    def left(self) -> float:
        now = self._clock()
        self._left = min(self.limit, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left

    def has(self, amount: int) -> bool:
        # Who waits as long as it is told finds it, whatever the arithmetic has lost.
        return self.left >= amount - 1e-6

    def take(self, amount: int) -> None:
        self._left = self.left - amount

    def wait_s(self, amount: int) -> float:
        """Seconds until there is so much of it."""
        return max(0.0, amount - self.left) / self._per_s


class Quota:
    """One owner's share."""

    def __init__(self, owner: str, limits: KeyLimits, clock: Clock = time.monotonic) -> None:
        self._owner = owner
        self._concurrent = limits.concurrent_requests
        self._running = 0
        self._requests = _bucket(limits.requests_per_minute, 60, clock)
        self._tokens = _bucket(limits.tokens_per_hour, 3600, clock)

    @property
    def headers(self) -> dict[str, str]:
        """How much of it is left, in OpenAI's words; what requests under way will cost is not known yet."""
        told = _told("requests", self._requests) | _told("tokens", self._tokens)
        return {f"x-ratelimit-{name}": value for name, value in told.items()}

    def admit(self) -> None:
        """Counts a request of the owner that may compute something.

        Raises:
            TooManyRequests: it is one too many.
        """
        if self._requests and not self._requests.has(1):
            raise self._refused(f"{self._requests.limit} requests a minute", self._requests.wait_s(1))
        self.check_tokens()
        if self._concurrent is not None and self._running >= self._concurrent:
            raise self._refused(f"{self._concurrent} requests at once", _BUSY_S)
        if self._requests:
            self._requests.take(1)

    def check_tokens(self) -> None:
        """Raises TooManyRequests where the owner has none left."""
        if self._tokens and not self._tokens.has(1):
            raise self._refused(f"{self._tokens.limit} tokens an hour", self._tokens.wait_s(1))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts a request as under way."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def charge(self, tokens: int) -> None:
        """Pays for a request that has ended."""
        if self._tokens:
            self._tokens.take(tokens)

    def _refused(self, limit: str, wait_s: float) -> TooManyRequests:
        return TooManyRequests(
            f"The key of {self._owner!r} has its limit of {limit}.",
            headers={"Retry-After": str(math.ceil(wait_s)), **self.headers},
        )


def computes(method: str, path: str) -> bool:
    """Whether a request may compute something: who may compute no more can still fetch what was made."""
    return method == "POST" and not path.startswith(QUIET)


def _bucket(limit: int | None, period_s: float, clock: Clock) -> Bucket | None:
    return None if limit is None else Bucket(limit, period_s, clock)


def _told(name: str, bucket: Bucket | None) -> dict[str, str]:
    if bucket is None:
        return {}
    left = max(0, math.floor(bucket.left + 1e-6))
    full_s = bucket.wait_s(bucket.limit)
    return {f"limit-{name}": str(bucket.limit), f"remaining-{name}": str(left), f"reset-{name}": duration(full_s)}


def duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s, 1h0m3s."""
    whole_ms = math.ceil(seconds * 1000)
    if whole_ms < 1000:
        return f"{whole_ms}ms"
    minutes, ms = divmod(whole_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
