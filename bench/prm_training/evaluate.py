"""How good a reward model is on labelled solutions: does it rank steps, and does it choose better answers than a vote.

Knows no model: scores are an argument.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.prm_training.labels import LabelledSolution
from bench.stats.intervals import Cell, Difference, difference, wilson
from prm import Aggregation, aggregate
from strategies.core.contracts import Candidate, Chunk, Sample, Selector
from strategies.sampling.draw import elect

DRAWS = 1000
"""Of the bootstrap."""

Scores = Mapping[str, Sequence[float]]
"""Of each solution, by its id, one score a step; none of one without steps."""


@dataclass(frozen=True, slots=True)
class AUC:
    """The chance that a right step scores above a wrong one, with its 95 % interval; nan where one kind is missing."""

    value: float
    low: float
    high: float
    right: int
    """Steps labelled right."""
    wrong: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}; {self.right} right and {self.wrong} wrong steps)"


@dataclass(frozen=True, slots=True)
class Chooser:
    """How often one way to choose an answer is right."""

    label: str
    hits: int
    problems: int
    against: Difference
    """To the vote of the majority, on the same problems."""

    @property
    def accuracy(self) -> float:
        return self.hits / self.problems

    @property
    def cells(self) -> tuple[str, ...]:
        low, high = wilson(self.hits, self.problems)
        return self.label, f"{self.accuracy:.1%}", f"{low:.1%} to {high:.1%}", str(self.against)


@dataclass(frozen=True, slots=True)
class _Step:
    problem: str
    score: float
    label: int


def step_auc(solutions: Sequence[LabelledSolution], scores: Scores, seed: int = 0) -> AUC:
    """The area under the ROC curve of all labelled steps, with a bootstrap interval over problems."""
    # In the order of their scores once: each draw only weighs the problems.
    steps = sorted(_labelled_steps(solutions, scores), key=lambda step: step.score)
    problems = sorted({step.problem for step in steps})
    rng = random.Random(seed)
    drawn = [_area(steps, _weights(rng.choices(problems, k=len(problems)))) for _ in range(DRAWS if problems else 0)]
    areas = sorted(area for area in drawn if area is not None)
    value = _area(steps, dict.fromkeys(problems, 1))
    right = sum(step.label for step in steps)
    nan = float("nan")
    if value is None:
        return AUC(nan, nan, nan, right, len(steps) - right)
    low, high = areas[int(0.025 * len(areas))], areas[int(0.975 * len(areas))]
    return AUC(value, low, high, right, len(steps) - right)


def _labelled_steps(solutions: Sequence[LabelledSolution], scores: Scores) -> Iterator[_Step]:
    for solution in solutions:
        for score, label in zip(scores[solution.id], solution.labels, strict=True):
            if label is not None:
                yield _Step(solution.problem, score, label)


def _weights(drawn: Sequence[str]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for problem in drawn:
        weights[problem] = weights.get(problem, 0) + 1
    return weights


def _area(steps: Sequence[_Step], weights: Mapping[str, int]) -> float | None:
    """The area over steps that are sorted by score, each as often as its problem; equal scores count half."""
    above = right = wrong = 0.0
    for _, level in groupby(steps, key=lambda step: step.score):
        counts = [0, 0]
        for step in level:
            counts[step.label] += weights.get(step.problem, 0)
        above += counts[1] * (wrong + counts[0] / 2)
        wrong, right = wrong + counts[0], right + counts[1]
    return above / (right * wrong) if right and wrong else None


async def best_of_n(solutions: Sequence[LabelledSolution], scores: Scores, aggregation: Aggregation) -> list[Chooser]:
    """Accuracy on the solutions' problems of the first solution, the vote, the reward model's choice, and any at all.

    Returns:
        no rows where no problem is left.
    """
    problems = _by_problem(solutions)
    if not problems:
        return []
    chosen = {
        "single": [group[0].correct is True for group in problems],
        "majority": [await _hit(group, scores, "majority", aggregation) for group in problems],
        f"best of n, {aggregation}": [await _hit(group, scores, "best", aggregation) for group in problems],
        f"weighted vote, {aggregation}": [await _hit(group, scores, "weighted", aggregation) for group in problems],
        "oracle": [any(solution.correct for solution in group) for group in problems],
    }
    cells = {label: Cell(label, "", None, 0, tuple(hits), 0.0, 0.0) for label, hits in chosen.items()}
    return [
        Chooser(label, sum(cell.hits), len(problems), difference([cell], [cells["majority"]], level=0.95))
        for label, cell in cells.items()
    ]


def _by_problem(solutions: Sequence[LabelledSolution]) -> list[list[LabelledSolution]]:
    ordered = sorted(solutions, key=lambda solution: (solution.problem, solution.number))
    return [list(group) for _, group in groupby(ordered, key=lambda solution: solution.problem)]


async def _hit(
    solutions: Sequence[LabelledSolution], scores: Scores, selector: Selector, aggregation: Aggregation
) -> bool:
    final = await elect([_candidate(solution, scores[solution.id], aggregation) for solution in solutions], selector)
    return solutions[final.ranking[0]].correct is True


def _candidate(solution: LabelledSolution, scores: Sequence[float], aggregation: Aggregation) -> Candidate:
    sample = solution.samples[0]
    end = Chunk(0, text=sample.text or "", finish_reason="eos" if sample.finish_reason == "stop" else "length")
    score = aggregate(scores, aggregation) if scores else None
    return Candidate(Sample([end]), answer=solution.answer, step_scores=tuple(scores), score=score)
