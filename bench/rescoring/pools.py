"""Stored samples, made ready for votes: their answers, canonical keys, grades and scores. Knows no estimate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.grading.grade import answers_correct
from bench.stored.records import Record, SampleRecord
from prm import Aggregation, aggregate
from strategies.allocation.difficulty import Attempt
from strategies.answers import canonical, extract
from strategies.core.contracts import Candidate, Chunk, FinishReason, Sample


@dataclass(frozen=True)
class Pool:
    """The samples of one problem."""

    candidates: tuple[Candidate, ...]
    keys: tuple[str | None, ...]
    """Canonical answers; None for a sample without one."""
    correct: tuple[bool, ...]
    """Whether the sample's answer is right."""

    def __post_init__(self) -> None:
        if not len(self.candidates) == len(self.keys) == len(self.correct):
            raise ValueError(f"{self.n} candidates need as many keys and grades")
        if any((c.answer is None) != (key is None) for c, key in zip(self.candidates, self.keys, strict=True)):
            raise ValueError("a key is None where there is no answer, and nowhere else")

    @property
    def n(self) -> int:
        return len(self.candidates)


class Answered(NamedTuple):
    """A record whose samples' answers are read and graded."""

    record: Record
    answers: tuple[str | None, ...]
    keys: tuple[str | None, ...]
    correct: tuple[bool, ...]

    def pool(self, aggregation: Aggregation | None = None) -> Pool:
        """The samples with the scores that they were stored with, or their step scores aggregated; None where none."""
        candidates = tuple(
            Candidate(sample_of(sample), answer, sample.step_scores, score_of(sample, aggregation))
            for sample, answer in zip(self.record.samples, self.answers, strict=True)
        )
        return Pool(candidates, self.keys, self.correct)

    def unscored(self, aggregation: Aggregation | None) -> int | None:
        """The first sample that has an answer and no score, or one that is no number."""
        for i, (sample, answer) in enumerate(zip(self.record.samples, self.answers, strict=True)):
            score = score_of(sample, aggregation)
            if (answer is not None and score is None) or (score is not None and not math.isfinite(score)):
                return i
        return None


async def answered(records: Sequence[Record]) -> list[Answered]:
    """The records with what their samples answer, read and compared as the server does it; order kept.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    answers = [tuple(map(answer_of, record.samples)) for record in records]
    pairs = [(record.gold, answer) for record, given in zip(records, answers, strict=True) for answer in given]
    verdicts = iter(await answers_correct(pairs))
    return [
        Answered(record, given, await _keys(given), tuple(next(verdicts) for _ in given))
        for record, given in zip(records, answers, strict=True)
    ]


async def _keys(answers: Sequence[str | None]) -> tuple[str | None, ...]:
    keys = iter(await canonical([answer for answer in answers if answer is not None]))
    return tuple(None if answer is None else next(keys) for answer in answers)


def answer_of(sample: SampleRecord) -> str | None:
    """As stored, else extracted from the text; a failed sample has none."""
    if _reason(sample) == "error":
        return None
    if sample.answer is not None or sample.text is None:
        return sample.answer
    return extract(sample.text, truncated=_reason(sample) != "stop")


def score_of(sample: SampleRecord, aggregation: Aggregation | None) -> float | None:
    if aggregation is None:
        return sample.score
    return aggregate(sample.step_scores, aggregation) if sample.step_scores else None


def failed(sample: SampleRecord) -> bool:
    return _reason(sample) == "error"


def attempt_of(sample: SampleRecord, key: str | None, *, scored: bool = True) -> Attempt:
    """What the features of difficulty look at of a sample that did not fail.

    Args:
        sample: the sample.
        key: its canonical answer.
        scored: whether its scores are to be seen.
    """
    tokens = sample.completion_tokens or 0
    return Attempt(
        key,
        tokens,
        truncated=sample.truncated,
        logprob=None if sample.logprob is None else sample.logprob / max(1, tokens),
        score=sample.score if scored else None,
        min_step=min(sample.step_scores) if scored and sample.step_scores else None,
    )


def sample_of(sample: SampleRecord) -> Sample:
    """A stored sample as one chunk."""
    return Sample([Chunk(0, sample.text or "", finish_reason=_reason(sample))])


def _reason(sample: SampleRecord) -> FinishReason:
    """Where nothing is told of its end, a solution is whole."""
    if sample.error is not None or sample.finish_reason == "error":
        return "error"
    match sample.finish_reason:
        case "length" | "content_filter" as cut:
            return cut
    return "stop"
