"""`tts-bench run --total-tokens`: a run whose problems share one budget (Damani et al. 2410.04707).

First every problem gets a pilot. Then further samples go wherever a token gains most, reckoned anew after each. What
was drawn is written down request by request beside the records, which are made of it in the end, so that a run that
was stopped goes on where it was.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.rescoring.pools import Answered, answered, attempt_of, failed
from bench.running.ask import Asker, Failures, QuestionFailed, QuestionTooLong
from bench.running.bids import Bid, Bidder, Known
from bench.running.shared_terms import Terms
from bench.stored.manifest import now
from bench.stored.records import Record, RecordWriter, Usage, read_records, records_of
from bench.tasks import Problem, PromptTemplate
from strategies.allocation.difficulty import Attempt
from strategies.allocation.shared_budget import SharedBudget
from strategies.sampling.draw import elect
from strategies.sampling.streams import sub_seed

PARTS = "parts"
"""Directory of what was drawn, beside the records."""


class Show(Protocol):
    """Shows how far a run is."""

    def add(self, record: Record) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass(slots=True)
class _Question:
    """A problem and what was drawn of it."""

    problem: Problem
    parts: list[Record] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    """Of the samples that came to something."""

    @property
    def known(self) -> Known:
        drawn = sum(len(part.samples) for part in self.parts)
        return Known(self.attempts, drawn, sum(spent(part.usage) for part in self.parts) / max(1, drawn))

    def add(self, part: Answered) -> None:
        self.parts.append(part.record)
        samples = zip(part.record.samples, part.keys, strict=True)
        self.attempts += [attempt_of(sample, key) for sample, key in samples if not failed(sample)]


class _Request(NamedTuple):
    """Samples that are being drawn."""

    question: int
    samples: int
    reserved: float


def spent(usage: Usage) -> int:
    """Tokens of the policy and of the reward model."""
    return (usage.completion_tokens or 0) + (usage.prm_tokens or 0)


class SharedRun:
    """Spends one budget on all problems that have no record yet.

    Args:
        terms: how they share it.
        problems: of the run.
        done: the problems that have a record, by id.
        out: the run's directory.
        asker: of the server.
        prompt: of a question.
        sampling: of the requests; its seed is that of a problem's first.
        concurrency: requests at once.
        show: sees how far it is.
        failures: takes the problems of which a request got no answer.
    """

    def __init__(
        self,
        terms: Terms,
        problems: Sequence[Problem],
        done: Sequence[Record],
        out: Path,
        asker: Asker,
        prompt: PromptTemplate,
        sampling: Mapping[str, Any],
        concurrency: int,
        show: Show,
        failures: Failures,
    ) -> None:
        self._terms = terms
        self._asker = asker
        self._prompt = prompt
        self._sampling = sampling
        self._concurrency = concurrency
        self._show = show
        self._failures = failures
        self._parts = out / PARTS
        ids = {record.id for record in done}
        self._questions = [_Question(problem) for problem in problems if problem.id not in ids]
        self._fresh: deque[int] = deque()
        """Questions without a pilot."""
        self._budget = SharedBudget(terms.tokens)
        self._budget.pay(0.0, sum(spent(record.usage) for record in done))
        self._bidder = Bidder(terms.selector, terms.samples, terms.policy)
        self._piloting: set[int] = set()
        self._bids: dict[int, Bid] = {}
        self._most = float(terms.sample_tokens)
        """That a sample can cost, as far as the reward model's share is known."""

    async def draw(self, stopped: Callable[[], bool]) -> None:
        """Draws all that the budget allows, or until `stopped` says so and what is under way has ended.

        Raises:
            RunError: no question can be answered.
            RecordError: what was drawn before cannot be read, or nothing can be written.
        """
        await self._restore()
        with RecordWriter(self._parts) as writer:
            under_way: dict[asyncio.Task[Record | None], _Request] = {}
            try:
                while True:
                    while len(under_way) < self._concurrency and not stopped() and (new := self._next(bool(under_way))):
                        under_way[asyncio.create_task(self._ask(new))] = new
                    if not under_way:
                        return
                    ended, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        await self._take(under_way.pop(task), task.result(), writer)
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def records(self) -> list[Record]:
        """What came of the problems, in their order; without those that a request got no answer to."""
        whole = [q for q in self._questions if q.parts and q.problem.id not in self._failures.why]
        return [await self._whole(question) for question in whole]

    async def _restore(self) -> None:
        """Goes on with what earlier sessions drew."""
        places = {question.problem.id: i for i, question in enumerate(self._questions)}
        file = records_of(self._parts)
        for part in await answered(read_records(self._parts) if file.exists() and file.stat().st_size else []):
            place = places.get(part.record.id.rpartition("#")[0])
            if place is not None:
                self._questions[place].add(part)
                self._budget.pay(0.0, spent(part.record.usage))
                self._see(part.record)
        self._fresh.extend(i for i, question in enumerate(self._questions) if not question.parts)
        if not self._fresh:
            self._begin_allocation()

    def _next(self, busy: bool) -> "_Request | None":
        """What to ask for now; None while that depends on what is under way, and at the end."""
        if self._fresh:
            room = int(self._budget.left // self._most)
            if room < self._terms.pilot and busy:
                return None
            samples = max(1, min(self._terms.pilot, room))
            self._budget.reserve(samples * self._most)
            request = _Request(self._fresh.popleft(), samples, samples * self._most)
            self._piloting.add(request.question)
            return request
        if self._piloting:
            return None
        offer = self._budget.buy()
        if offer is None and not busy:
            # What does not fit whole may fit in part.
            self._budget.withdraw()
            for place in range(len(self._questions)):
                self._bid(place)
            offer = self._budget.buy()
        if offer is None:
            return None
        return _Request(offer.question, self._bids.pop(offer.question).samples, offer.increment.reserve)

    def _begin_allocation(self) -> None:
        self._show.say(
            f"pilots: {self._budget.spent:,.0f} tokens; {max(0.0, self._budget.left):,.0f} are left to be spread"
        )
        for place in range(len(self._questions)):
            self._bid(place)

    def _bid(self, place: int) -> None:
        question = self._questions[place]
        if question.problem.id in self._failures.why or any(part.error for part in question.parts):
            return
        room = int(max(0.0, self._budget.left) // self._most)
        if bid := self._bidder(question.known, self._most, room):
            self._bids[place] = bid
            self._budget.offer(place, bid.increment)

    async def _ask(self, request: "_Request") -> Record | None:
        """A part of a problem's samples; None if there is no answer now."""
        question = self._questions[request.question]
        problem, number = question.problem, len(question.parts)
        bare = Record(id=f"{problem.id}#{number}", question=problem.question, gold=problem.gold, samples=())
        seed = self._sampling.get("seed")
        # The same seed again would draw the same samples again.
        sampling = {} if seed is None or not number else {"seed": sub_seed(seed, problem.id, number)}
        try:
            reply = await self._asker.ask(
                self._prompt.messages(problem.question), tts={"n": request.samples}, sampling=sampling
            )
        except QuestionTooLong as error:
            return replace(bare, error=str(error), finished=now())
        except QuestionFailed as error:
            self._failures.add(problem.id, error)
            return None
        self._failures.answered()
        return replace(
            bare, samples=reply.samples, usage=reply.usage, latency_s=round(reply.latency_s, 4), finished=now()
        )

    async def _take(self, request: "_Request", part: Record | None, writer: RecordWriter) -> None:
        self._budget.pay(request.reserved, spent(part.usage) if part else 0)
        if part:
            writer.append(part)
            self._see(part)
            (read,) = await answered([part])
            self._questions[request.question].add(read)
        if request.question not in self._piloting:
            self._bid(request.question)
            return
        self._piloting.discard(request.question)
        if not self._fresh and not self._piloting:
            self._begin_allocation()

    def _see(self, part: Record) -> None:
        """Learns what scoring adds to a sample's cost."""
        usage = part.usage
        if usage.prm_tokens and usage.completion_tokens:
            share = 1 + usage.prm_tokens / usage.completion_tokens
            self._most = max(self._most, self._terms.sample_tokens * share)

    async def _whole(self, question: _Question) -> Record:
        """A problem's record: the vote over all that was drawn of it."""
        problem, parts = question.problem, question.parts
        record = Record(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            samples=tuple(sample for part in parts for sample in part.samples),
            level=problem.level,
            subject=problem.subject,
            usage=total([part.usage for part in parts]),
            latency_s=round(sum(part.latency_s or 0.0 for part in parts), 4),
            finished=now(),
        )
        if not record.samples:
            return replace(record, correct=False, error=parts[0].error)
        (read,) = await answered([record])
        final = await elect(read.pool().candidates, self._terms.selector)
        chosen = final.ranking[0]
        return replace(
            record,
            answer=read.answers[chosen],
            correct=read.correct[chosen],
            chosen=chosen,
            confidence=final.confidence,
        )


def total(usages: Sequence[Usage]) -> Usage:
    """Of several requests; None where one of them does not tell. The prompt is counted once."""
    sums = {}
    for name in (entry.name for entry in fields(Usage)):
        counts = [getattr(usage, name) for usage in usages]
        sums[name] = None if None in counts else sum(counts)
    return Usage(**{**sums, "prompt_tokens": usages[0].prompt_tokens})
