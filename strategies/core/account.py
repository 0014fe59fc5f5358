"""The account: what a request may spend, what it has spent, and the one place that says stop."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from prm import ProcessRewardModel
from strategies.core.contracts import Engine, Event, Prompt
from strategies.core.deadline import Deadline
from strategies.core.latency import Latency
from strategies.core.observer import Observer

StopReason = Literal["max_samples", "max_tokens", "max_prm_tokens", "deadline", "engine"]
"""Which limit; or `engine`, where that is gone and the answer is what was found before."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one request may spend; None is no limit."""

    max_samples: int | None = None
    """Solutions that may be begun; the steps that go on from a beginning are none of their own."""
    max_tokens: int | None = None
    """Tokens that may be generated, over all branches."""
    max_prm_tokens: int | None = None
    """Tokens that the reward model may compute. A call that has begun is paid to its end."""
    deadline_s: float | None = None
    """Seconds from the request's arrival to its answer."""


@dataclass(slots=True)
class Usage:
    """What one request has cost, cancelled and failed branches included."""

    prompt_tokens: int = 0
    """The request's own prompt, once; the first call's, where the engine does not encode prompts."""
    cached_tokens: int = 0
    """Those of `prompt_tokens` that the first call found in the engine's prefix cache."""
    engine_prompt_tokens: int = 0
    """Prompt tokens of every sample, cached ones included."""
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    prm_tokens: int = 0
    prm_calls: int = 0
    samples: int = 0
    """Solutions that were begun, or other texts that the model was asked for; not each step of one."""


class BudgetSpent(Exception):
    """No more of this can be bought; `reason` names the limit. A strategy answers with what it has."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"the budget's {reason} is spent")
        self.reason = reason


class Measured(Protocol):
    """What was measured of a model before; the strategy that can read it knows what it is."""

    def mismatch(self, model: str, prm: str | None, prompt: str) -> str | None:
        """Why it does not hold for a request; None if it does."""
        ...


class Spans(Protocol):
    """Sees a search and its calls from outside, and changes nothing."""

    def search(self, events: AsyncGenerator[Event, None], account: "Account") -> AsyncGenerator[Event, None]: ...

    def engine(self, engine: Engine) -> Engine: ...

    def prm(self, prm: ProcessRewardModel) -> ProcessRewardModel: ...


class Account:
    """One request's budget and usage, which what is metered on it counts, and stops when it is spent.

    Args:
        budget: what the request may spend.
        usage: what it has cost before.
        prompt: the request's own; the first call's if not given.
        started: `time.monotonic()` at the request's start; now if not given.
        latency: what generating and scoring take at the moment; learns from what this account pays for.
        policy: how compute is spent best on this model, as far as that was measured.
        recorder: sees what the search does, where a record of it is kept.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        usage: Usage | None = None,
        *,
        prompt: Prompt | None = None,
        started: float | None = None,
        latency: Latency | None = None,
        policy: Measured | None = None,
        recorder: Observer | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self.usage = usage or Usage()
        self.prompt = prompt
        self.deadline = Deadline(self.budget.deadline_s, time.monotonic() if started is None else started)
        self.latency = latency or Latency()
        self.policy = policy
        self.recorder = recorder
        self.spans: Spans | None = None
        """See it too, where it is part of a distributed trace."""
        self.stop_reason: StopReason | None = None
        """The first limit that was reached."""
        self.live = 0
        """Samples that grow now."""

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.deadline.started

    @property
    def seconds_left(self) -> float | None:
        """None is no limit, here and below."""
        return self.deadline.seconds_left

    @property
    def tokens_left(self) -> int | None:
        limit = self.budget.max_tokens
        return None if limit is None else max(0, limit - self.usage.completion_tokens)

    @property
    def samples_left(self) -> int | None:
        limit = self.budget.max_samples
        return None if limit is None else max(0, limit - self.usage.samples)

    def spent(self, *, prm: bool = False) -> StopReason | None:
        """The limit that forbids another token (with `prm`: another scored token), if one does."""
        if self.deadline.ends_at is not None and self.deadline.passed:
            return "deadline"
        if prm:
            limit = self.budget.max_prm_tokens
            return "max_prm_tokens" if limit is not None and self.usage.prm_tokens >= limit else None
        limit = self.budget.max_tokens
        return "max_tokens" if limit is not None and self.usage.completion_tokens >= limit else None

    def afford(self, n: int) -> int:
        """How many of n solutions a search may be wide, one at least: its later steps cost no more samples."""
        left = self.samples_left
        if left is None or left >= n:
            return n
        self.stop(self.spent() or "max_samples")
        return max(1, left)

    def begin(self, n: int) -> int:
        """Notes that n samples begin, or as many as are left; how many.

        Raises:
            BudgetSpent: none is left.
        """
        left = self.samples_left
        if left is not None and left < n:
            spent = self.stop("max_samples")
            if left == 0:
                raise spent
            n = left
        self.usage.samples += n
        return n

    def stop(self, reason: StopReason) -> BudgetSpent:
        """Notes the limit that was reached first."""
        self.stop_reason = self.stop_reason or reason
        return BudgetSpent(reason)
