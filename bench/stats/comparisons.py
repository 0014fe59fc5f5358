"""How sure a mean over problems is, and whether two runs differ on the same problems. Knows no records."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.stats.intervals import Difference, wilson

RESAMPLES = 10_000
_AT_ONCE = 250
"""Resamples held in memory together."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """95 % of a mean over problems."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap"]


class McNemar(NamedTuple):
    """The exact test of two runs on the same problems."""

    only_one: int
    """Problems that only the first got right."""
    only_other: int
    p: float
    """Two-sided: of a split of the problems that they differ on as uneven as this one, if both were equally good."""


def intervals(columns: Sequence[Sequence[float]], *, seed: int = 0) -> list[Interval]:
    """Of each column's mean, its values being one a problem: Wilson's where all are 0 or 1, else a bootstrap's.

    Raises:
        ValueError: a column is empty, or they are not equally long.
    """
    fractional = [column for column in columns if not set(column) <= {0, 1}]
    bands = iter(bootstrap(fractional, seed=seed))
    shares = [None if column in fractional else wilson(round(sum(column)), len(column)) for column in columns]
    return [Interval(*share, "wilson") if share else Interval(*next(bands), "bootstrap") for share in shares]


def bootstrap(columns: Sequence[Sequence[float]], *, seed: int = 0) -> list[tuple[float, float]]:
    """The percentiles 2.5 and 97.5 of each column's mean over problems drawn with replacement; the same for all.

    Raises:
        ValueError: a column is empty, or they are not equally long.
    """
    if not columns:
        return []
    if len({len(column) for column in columns}) > 1 or not columns[0]:
        raise ValueError("a bootstrap needs columns of one length, with at least one problem")
    values = np.array(columns, dtype=np.float64).T
    low, high = np.percentile(_means(values, np.random.default_rng(seed)), [2.5, 97.5], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _means(values: Floats, random: np.random.Generator) -> Floats:
    """A row a resample."""
    n = len(values)
    rows = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        drawn = random.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        rows.append(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ values / n)
    return np.concatenate(rows)


def differences(
    ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]], *, seed: int = 0
) -> list[Difference]:
    """Of each column's mean from its partner's, value for value on the same problems, with a paired bootstrap's 95 %.

    Raises:
        ValueError: the columns differ in number or length.
    """
    gaps = [[a - b for a, b in zip(one, other, strict=True)] for one, other in zip(ones, others, strict=True)]
    bands = bootstrap(gaps, seed=seed)
    return [Difference(math.fsum(gap) / len(gap), *band) for gap, band in zip(gaps, bands, strict=True)]


def mcnemar(ones: Sequence[bool], others: Sequence[bool]) -> McNemar:
    """Raises ValueError if they are not equally long."""
    pairs = list(zip(ones, others, strict=True))
    only_one, only_other = pairs.count((True, False)), pairs.count((False, True))
    differing = only_one + only_other
    tail = sum(math.comb(differing, i) for i in range(min(only_one, only_other) + 1))
    return McNemar(only_one, only_other, min(1.0, 2 * tail / 2**differing))


def sign_flips(ones: Sequence[float], others: Sequence[float], *, seed: int = 0) -> float:
    """The two-sided p of the paired randomisation test, which McNemar's is where all values are 0 or 1.

    Raises:
        ValueError: they are not equally long.
    """
    gaps = np.array([a - b for a, b in zip(ones, others, strict=True) if a != b])
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(RESAMPLES, len(gaps)))
    # What rounding tells apart is as far off.
    reached = np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9
    return float((reached.sum() + 1) / (RESAMPLES + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """The p values adjusted for being several (Holm 1979); order kept."""
    adjusted, floor = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = floor
    return adjusted
