"""The record of one search while it runs: every engine call, sample and scoring in the order they began, every event.

No strategy knows of it: an account's engine and reward model see all that happens. A prompt names the samples that it
continues or shows, and a solution or a candidate the sample that ends it. Nothing is kept that follows from something
else that is kept.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from prm import StepScores
from strategies.core.contracts import Chunk, Event, Final, FinishReason, Incumbent, Progress, Prompt, Sampling
from strategies.core.parents import Steps


@dataclass(slots=True)
class SampleRecord:
    """One sample: a node of the search."""

    text: str = ""
    refusal: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ended_s: float | None = None
    """When it ended, in seconds from the request's start; None where it was aborted."""
    finish_reason: FinishReason | None = None
    """None where it was aborted."""
    stop: str | None = None
    error: Exception | None = None


@dataclass(slots=True)
class CallRecord:
    """One call of the engine."""

    started_s: float
    prompt: int
    """Which of the search's prompts it rendered, or begins with where it goes on from token ids."""
    parents: tuple[int, ...]
    """The samples that it goes on from, or that its prompt shows; samples are numbered over all calls."""
    sampling: Sampling
    first: int
    """The number of its first sample."""
    samples: tuple[SampleRecord, ...]
    ended_s: float | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Solution:
    """What a reward model read."""

    sample: int | None
    """The sample with which it ends."""
    steps: tuple[str, ...] = ()
    """What it says, where there is no such sample."""


@dataclass(slots=True)
class ScoringRecord:
    """One call of the reward model."""

    started_s: float
    solutions: tuple[Solution, ...]
    tokens: int = 0
    results: Sequence[StepScores] | None = None
    ended_s: float | None = None
    error: Exception | None = None


def _nobody() -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Recorder:
    """Gathers what one search does."""

    prompt: Prompt
    """What the request asks."""
    started: float
    """`time.monotonic()` at the request's start."""
    on_end: Callable[[], None] = _nobody
    """Called when the search has ended, before whoever reads its events knows; does not raise."""
    calls: list[CallRecord] = field(default_factory=list)
    scorings: list[ScoringRecord] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    """The request's own, and each different one that a call had."""
    events: list[tuple[float, Progress | Incumbent]] = field(default_factory=list)
    """Each with the seconds since the request's start."""
    final: Final | None = None
    error: Exception | None = None
    """Why the search failed."""
    ended_s: float | None = None
    _places: dict[tuple[tuple[str, str], ...], int] = field(default_factory=dict)
    """The indexes of `prompts`, by what their turns say."""
    _parents: list[tuple[int, ...]] = field(default_factory=list)
    """Of each sample, by its number."""

    def __post_init__(self) -> None:
        self._place(self.prompt)

    @property
    def samples(self) -> int:
        """How many were begun."""
        return self.calls[-1].first + len(self.calls[-1].samples) if self.calls else 0

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.started

    def see(self, event: Event) -> None:
        """An event of the search."""
        if isinstance(event, (Progress, Incumbent)):
            self.events.append((self.now_s, event))
        elif isinstance(event, Final):
            self.final = event

    def end(self, failure: Exception | None) -> None:
        """The search is over, by itself, by a failure, or because nobody wanted more."""
        self.error, self.ended_s = failure, self.now_s
        # Whoever is told holds this recorder: without the circle, what a request made is gone when the request is.
        on_end, self.on_end = self.on_end, _nobody
        on_end()

    def call(self, prompt: Prompt, sampling: Sampling, numbers: range) -> "Call":
        """Records a call that begins, until it is left."""
        parents = self._nearest(prompt.parents)
        samples = tuple(SampleRecord() for _ in numbers)
        record = CallRecord(self.now_s, self._place(prompt), parents, sampling, numbers.start, samples)
        self.calls.append(record)
        self._parents += [parents] * len(samples)
        return Call(self, record)

    def scoring(self, solutions: Sequence[Sequence[str]]) -> "Scoring":
        """Records a call of the reward model that begins, until it is left."""
        read = tuple(
            Solution(steps.sample)
            if isinstance(steps, Steps) and steps.sample is not None
            else Solution(None, tuple(steps))
            for steps in solutions
        )
        record = ScoringRecord(self.now_s, read)
        self.scorings.append(record)
        return Scoring(self, record)

    def _place(self, prompt: Prompt) -> int:
        """The prompt's index in `prompts`."""
        chat = tuple((turn["role"], str(turn.get("content"))) for turn in prompt.messages)
        if chat not in self._places:
            self._places[chat] = len(self.prompts)
            self.prompts.append(Prompt(prompt.messages, template=prompt.template))
        return self._places[chat]

    def _nearest(self, parents: Iterable[int]) -> tuple[int, ...]:
        """The parents without those that another of them was made from."""
        parents = tuple(dict.fromkeys(parents))
        if len(parents) < 2:
            return parents
        above: set[int] = set()
        stack = list(parents)
        while stack:
            new = [number for number in self._parents[stack.pop()] if number not in above]
            above.update(new)
            stack += new
        return tuple(sorted(number for number in parents if number not in above))


class Call:
    """One call under way; tell it of each chunk."""

    def __init__(self, recorder: Recorder, record: CallRecord) -> None:
        self._recorder = recorder
        self._record = record
        self._growing: dict[int, list[Chunk]] = {index: [] for index in range(len(record.samples))}

    def add(self, chunk: Chunk) -> None:
        """What a sample grew by."""
        grown = self._growing.get(chunk.index)
        if grown is None:
            return
        grown.append(chunk)
        if chunk.finish_reason:
            self._end(chunk.index, chunk)

    def __enter__(self) -> Callable[[Chunk], None]:
        return self.add

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for index in list(self._growing):
            self._end(index, None)
        self._record.ended_s, self._record.error = self._recorder.now_s, _cause(error)

    def _end(self, index: int, last: Chunk | None) -> None:
        chunks, sample = self._growing.pop(index), self._record.samples[index]
        sample.text = "".join([chunk.text for chunk in chunks])
        sample.refusal = "".join([chunk.refusal for chunk in chunks])
        for chunk in chunks:
            sample.prompt_tokens += chunk.prompt_tokens
            sample.cached_tokens += chunk.cached_tokens
            sample.completion_tokens += chunk.completion_tokens
        if last is None:
            return
        sample.ended_s = self._recorder.now_s
        sample.finish_reason, sample.stop, sample.error = last.finish_reason, last.stop, last.error


class Scoring:
    """One call of the reward model under way."""

    def __init__(self, recorder: Recorder, record: ScoringRecord) -> None:
        self._recorder = recorder
        self._record = record

    def __enter__(self) -> ScoringRecord:
        return self._record

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._record.ended_s, self._record.error = self._recorder.now_s, _cause(error)


def _cause(error: BaseException | None) -> Exception | None:
    """What failed; to be closed or cancelled is no failure."""
    return error if isinstance(error, Exception) else None
