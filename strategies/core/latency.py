"""What generating and scoring take at the moment, learned from live requests."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from types import TracebackType

from strategies.core.contracts import Chunk
from strategies.core.deadline import Late

FADE_S = 30.0
"""Seconds after which an observation weighs 1/e of a new one."""
_FADE_EVERY_S = 1.0
_NOTED_EVERY_S = 0.05
"""Seconds between two observations of one call, but for the beginnings and ends of its samples."""
_FLOOR = 1e-6
"""An old mean keeps this weight, so that an idle server still knows it."""


def now() -> float:
    """`time.monotonic()`, as it is when it is asked."""
    return time.monotonic()


@dataclass(slots=True)
class Recent:
    """A mean whose observations fade with time."""

    _total: float = 0.0
    _count: float = 0.0
    _at: float = -math.inf

    @property
    def mean(self) -> float | None:
        """None before the first observation."""
        return self._total / self._count if self._count else None

    def add(self, total: float, count: float = 1.0, at: float | None = None) -> None:
        """Takes `count` observations that sum to `total`; `at` is when."""
        at = time.monotonic() if at is None else at
        if at - self._at > _FADE_EVERY_S:
            kept = max(_FLOOR, math.exp((self._at - at) / FADE_S))
            self._total, self._count, self._at = self._total * kept, self._count * kept, at
        self._total += total
        self._count += count

    def add_at_least(self, total: float) -> None:
        """Takes an observation that was cut short at `total`."""
        self.add(max(total, self.mean or 0.0))


@dataclass(slots=True)
class EngineLatency:
    """One engine's."""

    first: Recent = field(default_factory=Recent)
    """Seconds from a call to its first token: those of waiting and of reading the prompt."""
    token: Recent = field(default_factory=Recent)
    """Seconds that one branch takes for each further token, at the load of the last half minute."""
    answer: Recent = field(default_factory=Recent)
    """Tokens of a whole solution."""


@dataclass(slots=True)
class PRMLatency:
    """One reward model's."""

    call: Recent = field(default_factory=Recent)
    token: Recent = field(default_factory=Recent)
    """Seconds of a call for each token that it computed."""


@dataclass(frozen=True, slots=True)
class Latency:
    """An engine's and a reward model's, as one request sees them. A figure is None as long as nothing is known."""

    engine: EngineLatency = field(default_factory=EngineLatency)
    prm: PRMLatency = field(default_factory=PRMLatency)

    @property
    def seconds_per_token(self) -> float | None:
        return self.engine.token.mean

    @property
    def prm_seconds_per_token(self) -> float | None:
        return self.prm.token.mean

    @property
    def prm_seconds_per_call(self) -> float | None:
        return self.prm.call.mean

    @property
    def answer_tokens(self) -> float | None:
        """Tokens that a whole solution has had of late."""
        return self.engine.answer.mean

    def finish_s(self, tokens: float) -> float | None:
        """Seconds that one call takes in which a branch grows by so many tokens."""
        each = self.seconds_per_token
        return None if each is None else (self.engine.first.mean or 0.0) + tokens * each


@dataclass(frozen=True, slots=True)
class Latencies:
    """Those of a server's engine and of each of its reward models."""

    engine: EngineLatency = field(default_factory=EngineLatency)
    prms: dict[str | None, PRMLatency] = field(default_factory=dict)

    def of(self, prm: str | None) -> Latency:
        """What a request sees that is scored by the reward model of this name."""
        return Latency(self.engine, self.prms.setdefault(prm, PRMLatency()))


@dataclass(slots=True)
class CallTimer:
    """Tells an engine's latency of one call of several samples."""

    latency: EngineLatency
    whole: bool = False
    """Whether what ends by itself is a whole solution."""
    _began: float = field(default_factory=now)
    due_at: float = 0.0
    """From when on another observation tells something new: a fast engine gives many chunks until then."""
    _noted: dict[int, tuple[float, int]] = field(default_factory=dict)
    """When each sample was noted last, and its tokens then."""

    def note(self, chunk: Chunk, tokens: int) -> None:
        """A sample grew by this, to so many tokens."""
        at = time.monotonic()
        if noted := self._noted.get(chunk.index):
            self.latency.token.add(at - noted[0], tokens - noted[1], at)
        elif not self._noted:
            self.latency.first.add(at - self._began, 1, at)
        self._noted[chunk.index] = at, tokens
        self.due_at = at + _NOTED_EVERY_S
        if self.whole and chunk.finish_reason == "eos":
            self.latency.answer.add(tokens, 1, at)

    def ended(self) -> None:
        """The call is over."""
        if not self._noted:
            self.latency.first.add_at_least(time.monotonic() - self._began)


@dataclass(slots=True)
class ScoringTimer:
    """Tells a reward model's latency of one call, which lasts while this is entered; one that fails tells nothing."""

    latency: PRMLatency
    tokens: int = 0
    """That it has computed."""
    _began: float = field(default_factory=now)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._began
        if kind is None:
            self.latency.call.add(seconds)
        elif issubclass(kind, asyncio.CancelledError | Late):
            self.latency.call.add_at_least(seconds)
        if self.tokens:
            self.latency.token.add(seconds, self.tokens)
