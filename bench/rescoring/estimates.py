"""Estimates over all problems that a run, or anyone, has stored samples of. Knows no model and no server."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from bench.rescoring.pools import Answered, Pool, answered
from bench.rescoring.subsets import DRAWS, Estimate, Measure, expected
from bench.stats.comparisons import Interval, McNemar, differences, intervals, mcnemar
from bench.stats.intervals import Difference
from bench.stored.manifest import Manifest, read_manifest
from bench.stored.records import RECORDS, RecordError, read_records
from prm import AGGREGATIONS, Aggregation

INDEPENDENT = frozenset({"single", "best_of_n", "self_consistency", "universal_self_consistency"})
"""Strategies that draw their candidates apart, so that k of them are what a smaller n would have given."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is estimated."""

    measure: Measure | Literal["returned"]
    """`returned` is no vote over samples, but what the run itself answered."""
    k: int | None
    """None: all samples that a problem has."""
    aggregation: Aggregation | None = None
    """None: the scores as they are stored, or none at all."""

    @property
    def label(self) -> str:
        if self.measure == "returned":
            return self.measure
        name = f"{self.measure}@{self.k or 'all'}"
        return f"{name} ({self.aggregation})" if self.aggregation else name


RETURNED = Question("returned", None)


@dataclass(frozen=True, slots=True)
class Row:
    """One estimate over all problems."""

    question: Question
    values: tuple[float, ...]
    """One a problem."""
    all_subsets: bool
    """Whether every subset of k samples took part, of every problem."""
    interval: Interval
    completion_tokens: float | None
    """Generated tokens of k samples of a problem, on average; None where the samples do not tell them."""

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True, slots=True)
class Stored:
    """The samples of a run or of a file, ready to be voted on."""

    path: Path
    problems: tuple[Answered, ...]
    manifest: Manifest | None = None

    def questions(
        self,
        measures: Sequence[Measure] = (),
        aggregations: Sequence[Aggregation] = (),
        ks: Sequence[int | None] = (),
    ) -> list[Question]:
        """Those asked for; where there is no choice, all that these samples can answer, for k = 1, 2, 4 … n.

        Raises:
            RecordError: a problem has fewer than k samples or lacks the scores that are asked for, or k of the
                candidates of a search are asked for, which are no draw of their own.
        """
        sizes = ks or self.sizes
        for k in sizes:
            self._refuse(k)
        scorings: list[Aggregation | None] = list(aggregations)
        if not aggregations:
            has_scores, has_steps = self._told()
            scorings = [None] if has_scores else []
            scorings += AGGREGATIONS if has_steps else ()
        chosen: Sequence[Measure] = measures or ("pass", "majority", *(("best", "weighted") if scorings else ()))
        questions = []
        for measure in chosen:
            needed = (scorings or [None]) if measure in ("best", "weighted") else [None]
            questions += [Question(measure, k, how) for how, k in product(needed, sizes)]
        for how in dict.fromkeys(q.aggregation for q in questions if q.measure in ("best", "weighted")):
            self._refuse_unscored(how)
        return questions

    def _told(self) -> tuple[bool, bool]:
        """Whether any sample has a score, and whether any has step scores."""
        samples = [sample for problem in self.problems for sample in problem.record.samples]
        return any(s.score is not None for s in samples), any(s.step_scores for s in samples)

    @property
    def sizes(self) -> list[int | None]:
        """1, 2, 4 … and as many as every problem has; only all, where they are no independent samples."""
        if self.dependent:
            return [None]
        fewest = min(len(problem.answers) for problem in self._sampled)
        return [*(1 << i for i in range(fewest.bit_length()) if 1 << i < fewest), fewest]

    @property
    def single(self) -> bool:
        """Whether no vote over its samples is a run's: it has one a problem, or those of a search."""
        return self.dependent is not None or self.sizes == [1]

    @property
    def _sampled(self) -> list[Answered]:
        """Without the problems that the server refused whole, which count as wrong for any k."""
        return [problem for problem in self.problems if problem.answers]

    @property
    def dependent(self) -> str | None:
        """The strategy whose candidates are no independent samples; None if they are, or are taken for it."""
        if self.manifest is None:
            return None
        settings = self.manifest.settings
        strategy = settings.strategy or settings.model.partition("@")[2] or None
        if strategy is None or (strategy in INDEPENDENT and settings.options.get("stopping", "none") == "none"):
            return None
        return strategy

    def _refuse(self, k: int | None) -> None:
        if k is None:
            return
        if self.dependent:
            raise RecordError(
                f"{self.path}: the candidates of {self.dependent} are no independent samples: fewer of them are not "
                "what a smaller budget gives; k can only be all"
            )
        for problem in self._sampled:
            if len(problem.answers) < k:
                raise RecordError(
                    f"{self.path}: k is {k}, and record {problem.record.id!r} has {len(problem.answers)} samples"
                )

    def _refuse_unscored(self, aggregation: Aggregation | None) -> None:
        if lacking := self.lacking(aggregation):
            raise RecordError(f"{self.path}: {lacking}")

    def lacking(self, aggregation: Aggregation | None) -> str | None:
        """Which score `best` and `weighted` would need and is not there; None if all are."""
        for problem in self.problems:
            sample = problem.unscored(aggregation)
            if sample is None:
                continue
            name = "score" if aggregation is None else "step_scores"
            has_steps = aggregation is None and problem.record.samples[sample].step_scores
            return (
                f"record {problem.record.id!r}: samples.{sample}.{name} is not given, or not finite; best and weighted "
                f"need it{', or an aggregation of its step_scores' if has_steps else ''}"
            )
        return None

    def rows(self, questions: Sequence[Question], *, draws: int = DRAWS, seed: int = 0) -> list[Row]:
        """The estimates, each with its interval."""
        pools = {how: [p.pool(how) for p in self.problems] for how in {q.aggregation for q in questions}}
        columns = [
            [
                # A seed for each problem, so that what one draws by luck does not repeat in the others.
                self._estimate(problem, pool, question, draws, f"{seed} {place}")
                for place, (problem, pool) in enumerate(zip(self.problems, pools[question.aggregation], strict=True))
            ]
            for question in questions
        ]
        values = [tuple(estimate.value for estimate in column) for column in columns]
        return [
            Row(question, value, all(e.all_subsets for e in column), band, self._tokens(question.k))
            for question, column, value, band in zip(
                questions, columns, values, intervals(values, seed=seed), strict=True
            )
        ]

    def _estimate(self, problem: Answered, pool: Pool, question: Question, draws: int, seed: str) -> Estimate:
        record = problem.record
        if question.measure == "returned":
            if record.correct is None and record.error is None and pool.n > 1:
                raise RecordError(f"{self.path}: record {record.id!r} has no `correct`, nor one sample to grade")
            alone = record.correct is None and pool.n == 1 and pool.correct[0]
            return Estimate(float(alone or record.correct is True), True)
        if not pool.n:
            return Estimate(0.0, True)
        return expected(pool, question.measure, question.k or pool.n, draws=draws, seed=seed)

    def _tokens(self, k: int | None) -> float | None:
        costs = []
        for problem in self.problems:
            counts = [sample.completion_tokens for sample in problem.record.samples]
            if any(count is None for count in counts):
                return None
            share = 1.0 if k is None else k / max(1, len(counts))
            costs.append(share * sum(filter(None, counts)))
        return math.fsum(costs) / len(costs)


def load(path: Path) -> Stored:
    """The samples of a run's directory or of a JSONL file, read and graded.

    Raises:
        RecordError: see `bench.stored.records.read_records`; or no problem has any sample.
        RuntimeError: the process that compares answers does not start.
    """
    records = read_records(path)
    for record in records:
        if not record.samples and record.error is None:
            raise RecordError(f"{path}: record {record.id!r} has no samples")
    if not any(record.samples for record in records):
        raise RecordError(f"{path}: no record has any samples")
    directory = path.parent if path.name == RECORDS else path
    return Stored(path, tuple(asyncio.run(answered(records))), read_manifest(directory))


class Comparison(NamedTuple):
    """One estimate from two runs, on the problems that both have."""

    one: Row
    other: Row
    difference: Difference
    """Of the first's mean from the second's."""
    mcnemar: McNemar | None
    """None where an estimate of a problem is between right and wrong."""


def paired(one: Stored, other: Stored) -> tuple[Stored, Stored]:
    """Both without the problems that only one has.

    Raises:
        RecordError: there is none in common, or one has another gold answer in the other.
    """
    theirs = {problem.record.id: problem for problem in other.problems}
    common = [problem for problem in one.problems if problem.record.id in theirs]
    if not common:
        raise RecordError(f"{one.path} and {other.path} have no problem in common")
    partners = [theirs[problem.record.id] for problem in common]
    for mine, its in zip(common, partners, strict=True):
        if mine.record.gold != its.record.gold:
            raise RecordError(
                f"record {mine.record.id!r} has the gold answer {mine.record.gold!r} in {one.path} and "
                f"{its.record.gold!r} in {other.path}: these are different problems"
            )
    return replace(one, problems=tuple(common)), replace(other, problems=tuple(partners))


def compare(ones: Sequence[Row], others: Sequence[Row], *, seed: int = 0) -> list[Comparison]:
    """Row by row; those of two runs are on the same problems (`paired`).

    Raises:
        ValueError: they are not equally many, or not on equally many problems.
    """
    gaps = differences([row.values for row in ones], [row.values for row in others], seed=seed)
    return [
        Comparison(one, other, gap, _tested(one, other)) for one, other, gap in zip(ones, others, gaps, strict=True)
    ]


def _tested(one: Row, other: Row) -> McNemar | None:
    if not {*one.values, *other.values} <= {0, 1}:
        return None
    return mcnemar([value == 1 for value in one.values], [value == 1 for value in other.values])
