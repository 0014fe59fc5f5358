"""The account: what a request may spend, what it has spent, and the one place that says stop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from prm import Aggregation, Choice, OnTokens, PRMInputError, ProcessRewardModel, StepScores
from prm.base import check_scores
from strategies.core.contracts import Chunk, Delta, Engine, Event, Final, Prompt, Sampling, TokenIds
from strategies.core.engine_wrapper import EngineWrapper
from strategies.core.latency import CallTimer, Latency, ScoringTimer, now

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


TICK_S = 0.002
"""Seconds by which an event loop's timer may be early."""


class BudgetSpent(Exception):
    """No more of this can be bought; `reason` names the limit. A strategy answers with what it has."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(f"the budget's {reason} is spent")
        self.reason = reason


class ScoringNote(Protocol):
    """Takes what one call of the reward model comes to."""

    tokens: int
    results: Sequence[StepScores] | None


class Observer(Protocol):
    """Sees every call, sample, scoring and event of a search, and changes nothing."""

    def call(
        self, prompt: Prompt, sampling: Sampling, numbers: range
    ) -> AbstractContextManager[Callable[[Chunk], None], None]:
        """A call of the engine that lasts while this is entered; what it gives takes each chunk.

        Args:
            prompt: what the call continues; it names its parents.
            sampling: how its samples are drawn.
            numbers: those of its samples in the search.
        """
        ...

    def scoring(self, solutions: Sequence[Sequence[str]]) -> AbstractContextManager[ScoringNote, None]:
        """A call of the reward model that lasts while this is entered; a solution of `Steps` names its sample."""
        ...

    def see(self, event: Event) -> None:
        """An event of the search."""
        ...

    def end(self, failure: Exception | None) -> None:
        """The search is over, by itself, by a failure, or because nobody wanted more."""
        ...


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


@dataclass(slots=True)
class Account:
    """One request's budget and usage. Its engine and reward model count every token and stop when it is spent."""

    budget: Budget = field(default_factory=Budget)
    usage: Usage = field(default_factory=Usage)
    prompt: Prompt | None = None
    """The request's own; the first call's if not given."""
    stop_reason: StopReason | None = None
    """The first limit that was reached."""
    started: float = field(default_factory=now)
    recorder: Observer | None = None
    """Sees what the search does, where a record of it is kept."""
    spans: Spans | None = None
    """See it too, where it is part of a distributed trace."""
    live: int = 0
    """Samples that grow now."""
    first_s: float | None = None
    """When the answer's first token was known, in seconds from the start."""
    final: Final | None = None
    """The end of the search, once it has come."""
    is_late: bool = False
    """Whether a timer has said that the deadline is there: that of a busy event loop is early by our clock."""
    waiter: asyncio.Task[Any] | None = None
    """Who waits for the search's next event."""
    is_cut: bool = False
    """Whether that wait was ended."""
    latency: Latency = field(default_factory=Latency)
    """What generating and scoring take at the moment; learns from what this account pays for."""
    policy: Measured | None = None
    """How compute is spent best on this model, as far as that was measured."""

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        if self.budget.deadline_s is None:
            return None
        return 0.0 if self.is_late else max(0.0, self.budget.deadline_s - self.wall_s)

    @property
    def tokens_left(self) -> int | None:
        limit = self.budget.max_tokens
        return None if limit is None else max(0, limit - self.usage.completion_tokens)

    @property
    def samples_left(self) -> int | None:
        limit = self.budget.max_samples
        return None if limit is None else max(0, limit - self.usage.samples)

    def end_within(self, seconds: float) -> None:
        """Brings the deadline forward, where it is further away."""
        left = self.seconds_left
        if left is None or left > seconds:
            self.budget = replace(self.budget, deadline_s=self.wall_s + seconds)

    def cut(self) -> None:
        """Ends the wait for the search's next event, if its deadline has passed and `anytime` waits all the same."""
        if self.waiter and self.seconds_left == 0:
            self.is_cut = True
            self.waiter.cancel()

    def rang(self, timer: asyncio.Timeout) -> bool:
        """Whether it was this timer of the deadline that ended a wait; then the deadline is there."""
        self.is_late = self.is_late or timer.expired()
        return self.seconds_left == 0

    def spent(self, *, prm: bool = False) -> StopReason | None:
        """The limit that forbids another token (with `prm`: another scored token), if one does."""
        if self.budget.deadline_s is not None and self.seconds_left == 0:
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

    def meter(self, engine: Engine) -> Engine:
        return MeteredEngine(self.spans.engine(engine) if self.spans else engine, self)

    def meter_prm(self, prm: ProcessRewardModel, *, strict: bool = False) -> ProcessRewardModel:
        """The reward model, paid from this account; `strict` fails where a solution cannot be scored."""
        return MeteredPRM(self.spans.prm(prm) if self.spans else prm, self, strict=strict)

    def watched(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """The events of the search that this account pays for, seen by whoever watches it."""
        seen = self._seen(events)
        return self.spans.search(seen, self) if self.spans else seen

    async def _seen(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        recorder = self.recorder
        failure: Exception | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    if self.first_s is None and isinstance(event, (Delta, Final)):
                        self.first_s = self.wall_s
                    if isinstance(event, Final):
                        self.final = event
                        self._note_deadline()
                    if recorder:
                        recorder.see(event)
                    yield event
            if self.final is None:
                failure = RuntimeError("the strategy ended without a final event")
        except Exception as error:
            failure = error
            raise
        finally:
            if recorder:
                recorder.end(failure)

    def _note_deadline(self) -> None:
        """A vote, too, may have been cut by the deadline, and says so to nobody."""
        left = self.seconds_left
        if left is not None and left <= TICK_S:
            self.stop("deadline")


class MeteredEngine(EngineWrapper):
    """An engine that pays from an account.

    When the budget is spent in the middle of a call, the call is aborted and each sample that was still growing ends
    with the finish reason `budget`; the iterator then ends as usual. A call that cannot begin at all raises
    `BudgetSpent`; one that asks for more samples than are left gets those that are left. A call that goes on from token
    ids with which another one began, or that were encoded, begins no samples: those are counted already.
    """

    def __init__(self, engine: Engine, account: Account) -> None:
        super().__init__(engine)
        self._account = account
        self._beginnings: set[TokenIds] = set()
        self._drawn = 0

    async def encode(self, prompt: Prompt) -> TokenIds:
        account = self._account
        try:
            async with asyncio.timeout(account.seconds_left) as limit:
                ids = await self._engine.encode(prompt)
        except TimeoutError:
            if account.rang(limit):
                raise account.stop("deadline") from None
            raise
        if prompt == account.prompt:
            account.usage.prompt_tokens = len(ids)
        self._beginnings.add(ids)
        return ids

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        account, usage = self._account, self._account.usage
        first_call = usage.samples == 0
        n = self._admit(prompt.token_ids, n)
        numbers = range(self._drawn, self._drawn + n)
        self._drawn += n
        growing, unseen = set(range(n)), set(range(n))
        timer = CallTimer(account.latency.engine, whole=first_call and not prompt.token_ids)
        account.live += n
        try:
            if first_call and account.prompt not in (None, prompt) and not usage.prompt_tokens and self.continues:
                await self.encode(account.prompt)
            with account.recorder.call(prompt, sampling, numbers) if account.recorder else nullcontext() as note:
                async with aclosing(self._engine.generate(prompt, sampling, n)) as chunks:
                    while growing and not account.spent() and (chunk := await self._next(chunks, len(growing), n)):
                        timer.grown(chunk)
                        if chunk.index in unseen:
                            unseen.remove(chunk.index)
                            chunk = replace(chunk, number=numbers[chunk.index])
                        if first_call and chunk.prompt_tokens:
                            usage.prompt_tokens = usage.prompt_tokens or chunk.prompt_tokens
                            usage.cached_tokens = min(chunk.cached_tokens, usage.prompt_tokens)
                            first_call = False
                        usage.engine_prompt_tokens += chunk.prompt_tokens
                        usage.cached_prompt_tokens += chunk.cached_tokens
                        usage.completion_tokens += chunk.completion_tokens
                        if note:
                            note(chunk)
                        if chunk.finish_reason and chunk.index in growing:
                            growing.remove(chunk.index)
                            account.live -= 1
                        yield chunk
                if growing and (reason := account.spent()):
                    account.stop(reason)
                    for index in sorted(growing):
                        cut = Chunk(index, finish_reason="budget")
                        if note:
                            note(cut)
                        yield cut
                timer.ended()
        finally:
            account.live -= len(growing)

    async def _next(self, chunks: AsyncGenerator[Chunk, None], growing: int, n: int) -> Chunk | None:
        """The next chunk of a call of whose n samples so many grow; None if the deadline comes first."""
        left = self._account.seconds_left
        try:
            if left is None:
                return await anext(chunks)
            async with asyncio.timeout(left) as limit:
                return await anext(chunks)
        except TimeoutError:
            if left is None or not self._account.rang(limit):
                raise
            return None
        except StopAsyncIteration:
            raise RuntimeError(f"the engine ended its stream before {growing} of {n} samples") from None

    def _admit(self, ids: TokenIds, n: int) -> int:
        if reason := self._account.spent():
            raise self._account.stop(reason)
        if self._goes_on(ids):
            return n
        n = self._account.begin(n)
        if ids:
            self._beginnings.add(ids)
        return n

    def _goes_on(self, ids: TokenIds) -> bool:
        """Whether there was a beginning of these token ids, and they are none themselves."""
        if ids in self._beginnings:
            return False
        return any(ids[: len(begun)] == begun for begun in self._beginnings if len(begun) < len(ids))


class MeteredPRM:
    """A reward model that pays from an account; raises `BudgetSpent` when it cannot, or at the deadline.

    A solution that cannot be scored, as one that is longer than the model's context, has a `fault` in place of scores,
    and the others have theirs; only a strict one raises PRMInputError.
    """

    def __init__(self, prm: ProcessRewardModel, account: Account, *, strict: bool = False) -> None:
        self._prm = prm
        self._account = account
        self._strict = strict
        self.name = prm.name
        self.aggregation: Aggregation = prm.aggregation
        self.selector: Choice = prm.selector
        self.trained = prm.trained

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        account = self._account
        if reason := account.spent(prm=True):
            raise account.stop(reason)
        account.usage.prm_calls += 1
        with account.recorder.scoring(solutions) if account.recorder else nullcontext() as record:
            timer = ScoringTimer(account.latency.prm)

            def pay(tokens: int) -> None:
                timer.tokens += tokens
                account.usage.prm_tokens += tokens
                if record:
                    record.tokens += tokens
                if on_tokens:
                    on_tokens(tokens)

            try:
                with timer:
                    async with asyncio.timeout(account.seconds_left) as limit:
                        results = await self._scored(question, solutions, pay)
            except TimeoutError:
                if account.rang(limit):
                    raise account.stop("deadline") from None
                raise
            if record:
                record.results = results
        return results

    async def _scored(self, question: str, solutions: Sequence[Sequence[str]], on_tokens: OnTokens) -> list[StepScores]:
        try:
            # A reward model, and what sends its call on, knows plain tuples only.
            plain = [tuple(steps) for steps in solutions]
            results = await self._prm.score(question, plain, on_tokens=on_tokens)
        except PRMInputError as error:
            if self._strict:
                raise
            return await self._scored_apart(question, solutions, on_tokens, error)
        check_scores(solutions, results)
        return results

    async def _scored_apart(
        self, question: str, solutions: Sequence[Sequence[str]], on_tokens: OnTokens, error: PRMInputError
    ) -> list[StepScores]:
        """Scores what can be scored of a call that was refused."""
        if len(solutions) == 1:
            return [StepScores((), fault=str(error))]
        known = {i: StepScores((), fault=fault) for i, fault in error.faults.items()} | dict(error.scored)
        rest = [i for i in range(len(solutions)) if i not in known]
        # A model that does not tell which it cannot score is asked for one after the other.
        for group in [rest] if known and rest else [[i] for i in rest]:
            results = await self._scored(question, [solutions[i] for i in group], on_tokens)
            known |= zip(group, results, strict=True)
        return [known[i] for i in range(len(solutions))]
