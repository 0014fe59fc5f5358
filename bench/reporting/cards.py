"""Where runs differ: what each returned for a problem, step by step. Model output is kept as text, never as markup."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.reporting.data import Run, right
from bench.rescoring.pools import answer_of
from bench.stored.records import Record, SampleRecord
from prm import split_steps

MAX_CHARACTERS = 20_000
"""Of one solution on the page."""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a solution."""

    text: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Card:
    """What one run returned for one problem."""

    place: int
    """The run's, which decides its colour."""
    run: str
    correct: bool
    answer: str | None
    score: float | None
    facts: list[str]
    """Tokens, seconds and the like."""
    steps: list[Step]
    note: str | None
    """What is not shown, and why."""
    votes: list[str]
    """The samples' answers, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """A problem that some runs got right and some wrong."""

    id: str
    question: str
    gold: str
    tags: list[str]
    cards: list[Card]


def dispute(runs: Sequence[Run], name: str) -> Dispute:
    """The problem, with what each of the runs that have it returned."""
    have = [(place, run, run.by_id[name]) for place, run in enumerate(runs) if name in run.by_id]
    first = have[0][2]
    tags = [f"{kind} {value}" for kind, value in (("level", first.level), ("subject", first.subject)) if value]
    return Dispute(name, first.question, first.gold, tags, [card(place, run, record) for place, run, record in have])


def card(place: int, run: Run, record: Record) -> Card:
    """What a run returned for one problem."""
    sample = _returned(record)
    steps, note = _steps(sample) if sample else ([], None)
    if record.error is not None:
        note = f"No answer: {record.error}"
    elif sample is None:
        note = "The returned solution is not among the stored samples."
    score = sample.score if sample else None
    return Card(place, run.name, right(record), record.answer, score, _facts(record), steps, note, _votes(record))


def _returned(record: Record) -> SampleRecord | None:
    if record.chosen is not None:
        return record.samples[record.chosen]
    answers = [answer_of(sample) for sample in record.samples]
    if record.answer is not None and record.answer in answers:
        return record.samples[answers.index(record.answer)]
    return record.samples[0] if len(record.samples) == 1 else None


def _steps(sample: SampleRecord) -> tuple[list[Step], str | None]:
    if sample.text is None:
        return [], "Its text is not stored."
    whole, text = len(sample.text), sample.text[:MAX_CHARACTERS]
    note = None if whole <= MAX_CHARACTERS else f"{whole - MAX_CHARACTERS:,} more characters are in the records."
    parts, scores = split_steps(text), sample.step_scores or ()
    if note is None and len(parts) == len(scores):
        return [Step(part, score) for part, score in zip(parts, scores, strict=True)], None
    if scores:
        said = ", ".join(f"{score:.2f}" for score in scores)
        note = " ".join(filter(None, [f"The step scores are {said}: their steps were cut in another way.", note]))
    return [Step(part, None) for part in parts], note


def _facts(record: Record) -> list[str]:
    tokens, seconds = record.usage.completion_tokens, record.latency_s
    return [
        *([f"{tokens:,} tokens generated"] if tokens is not None else []),
        *([f"{seconds:.1f} s"] if seconds is not None else []),
        *([f"confidence {record.confidence:.2f}"] if record.confidence is not None else []),
        *([f"stopped by {record.stop_reason}"] if record.stop_reason else []),
    ]


def _votes(record: Record) -> list[str]:
    if len(record.samples) < 2:
        return []
    counts = Counter(answer_of(sample) for sample in record.samples)
    return [f"{'no answer' if answer is None else answer} × {count}" for answer, count in counts.most_common()]
