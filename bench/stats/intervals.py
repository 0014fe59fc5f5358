"""Shares and their differences, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Cell:
    """One contestant at one budget, difficulty and reward model."""

    label: str
    difficulty: str
    quality: float | None
    """Of the reward model; None where none is used."""
    budget: int
    hits: tuple[bool, ...]
    """Of each question, whether the answer was right."""
    completion_tokens: float
    """Generated tokens a question, over all branches."""
    prm_tokens: float
    """Tokens that the reward model read a question."""

    @property
    def accuracy(self) -> float:
        return sum(self.hits) / len(self.hits)

    def shared(self, qualities: Sequence[float]) -> list["Cell"]:
        """The cell in each quality of the reward model, if it uses none."""
        return [self] if self.quality is not None else [replace(self, quality=quality) for quality in qualities]


@dataclass(frozen=True, slots=True)
class Difference:
    """Between the accuracies on the same questions, with its interval; written in percentage points."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; of weighted hits, n is the effective number."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = hits / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(ones: Sequence[Cell], others: Sequence[Cell], level: float = 0.99) -> Difference:
    """How much more often `ones` hit than `others`, cell for cell, on the same questions.

    A question counts once, with its mean over the cells, because its answers in several cells are no independent draws.
    """
    gaps = [[a - b for a, b in zip(one.hits, other.hits, strict=True)] for one, other in zip(ones, others, strict=True)]
    means = [sum(gap) / len(gap) for gap in zip(*gaps, strict=True)]
    n = len(means)
    mean = sum(means) / n
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in means) / max(1, n - 1) / n)
    z = NormalDist().inv_cdf((1 + level) / 2)
    return Difference(mean, mean - z * deviation, mean + z * deviation)
