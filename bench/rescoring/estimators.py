"""What k of n stored samples of a problem would reach, on the average over which k. Knows no model and no file.

The samples of a problem are drawn alike, so any k of them in any order were as likely as any others. An estimate is
the mean, over all of those, of whether what the server's own vote (`strategies.answers.voting`) returns is right.
Order is luck as well: where the vote takes the first seen of equals, an answer is the first as often as its samples
are many.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bench.rescoring.pools import Level, Pool

Measure = Literal["pass", "majority", "best", "weighted"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
DRAWS = 4096
"""Subsets that are drawn where there are too many to take them all."""
ALL_SUBSETS = 20_000
"""Up to so many, all are taken: enough for any k of 16."""
EXACT_VOTE = 256
"""Samples of a problem up to which a majority is reckoned rather than drawn."""

_ROWS = 2048
"""Subsets at once: what is reckoned of them stays in the processor's cache."""

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """Chance that the returned answer is right (`pass`: that one of the samples is)."""

    value: float
    exact: bool
    """Over all subsets; else over `draws` of them."""


def expected(pool: Pool, measure: Measure, k: int, *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The estimate for one problem; `pass` is that of Chen et al. (2107.03374).

    Raises:
        ValueError: k is not in 1 … n, or `best` or `weighted` is asked for and a sample with an answer has no score.
    """
    if not 1 <= k <= pool.n:
        raise ValueError(f"k is 1 to {pool.n}, the number of samples; got {k}")
    if measure in ("best", "weighted"):
        for i in pool.voters:
            if pool.candidates[i].score is None:
                raise ValueError(f"sample {i} has no score")
    value, exact = _expected(pool, measure, k, draws, seed)
    # What is certain is to be 0 or 1, whatever rounding says.
    return Estimate(round(value, 12), exact)


def _expected(pool: Pool, measure: Measure, k: int, draws: int, seed: int) -> Estimate:
    right = sum(pool.correct[i] for i in pool.voters)
    unanimous = right == len(pool.voters) and measure in ("majority", "weighted")
    if measure == "pass" or unanimous or not right:
        return Estimate(1 - math.comb(pool.n - right, k) / math.comb(pool.n, k), True)
    if measure == "best":
        return Estimate(_best(pool, k), True)
    if measure == "majority" and pool.n <= EXACT_VOTE:
        tallies = sorted(tuple(_tally(pool, level) for level in cluster) for cluster in pool.clusters)
        return Estimate(_majority(tuple(tallies), pool.n, k), True)
    weights = [1.0 if measure == "majority" else max(0.0, c.score or 0.0) for c in pool.candidates]
    chosen = _subsets(pool.n, k, draws, seed)
    return Estimate(_voted(pool, np.array(weights), chosen), math.comb(pool.n, k) <= ALL_SUBSETS)


class _Tally(NamedTuple):
    size: int
    right: int


def _tally(pool: Pool, level: Sequence[int]) -> _Tally:
    return _Tally(len(level), sum(pool.correct[i] for i in level))


def _best(pool: Pool, k: int) -> float:
    """Sum over levels of the chance that it is the best one present, times that of being right there."""
    value, before = 0.0, 0
    for level in pool.contenders:
        tally = _tally(pool, level)
        behind = pool.n - before
        top = (math.comb(behind, k) - math.comb(behind - tally.size, k)) / math.comb(pool.n, k)
        value += top * tally.right / tally.size if tally.right in (0, tally.size) else _tied(pool, level, before, k)
        before += tally.size
    return value


def _tied(pool: Pool, level: Level, before: int, k: int) -> float:
    """Chance that the level is the best one present and a right one of it is returned, which is of the answer seen
    first, be it in a sample of a lower level.
    """
    p = k / pool.n
    clusters = [
        (_tally(pool, cluster[place]), sum(map(len, cluster[place + 1 :])))
        for cluster in pool.clusters
        for place in [next((i for i, part in enumerate(cluster) if part[0] in level), None)]
        if place is not None
    ]
    free = pool.n - before - sum(here.size + below for here, below in clusters)
    state = _State.of(free, k, k, p)
    for here, below in clusters:
        lower, upper = _chances(below, p, k), _chances(here.size, p, k)
        some = np.convolve(np.append(0.0, upper[1:]), lower)[: k + 1]
        share = here.right / here.size
        state = state.joined(
            [_Move(j, 0, upper[0] * chance, 0.0) for j, chance in enumerate(lower)]
            + [_Move(j, j, chance, share * j) for j, chance in enumerate(some) if j]
        )
    return float(state.won() * (1 - p) ** before / _chances(pool.n, p, k)[k])


@lru_cache(maxsize=4096)
def _majority(clusters: tuple[tuple[_Tally, ...], ...], n: int, k: int) -> float:
    """Chance that a right answer is returned: a sum over the votes of the leading answer and over ties with it."""
    p, won = k / n, 0.0
    sizes = {cluster: sum(level.size for level in cluster) for cluster in clusters}
    for most in range(1, k + 1):
        rivals = [cluster for cluster in clusters if sizes[cluster] >= most]
        if not any(level.right for cluster in rivals for level in cluster):
            break
        state = _State.of(n - sum(sizes[cluster] for cluster in rivals), k, k // most, p)
        for cluster in rivals:
            chances = _chances(sizes[cluster], p, most)
            fewer = [_Move(j, 0, chances[j], 0.0) for j in range(most)]
            state = state.joined([*fewer, _Move(most, 1, chances[most], _returned_right(cluster, most))])
        won += state.won()
    return float(won / _chances(n, p, k)[k])


def _returned_right(cluster: Sequence[_Tally], m: int) -> float:
    """Chance that the best of m samples of a cluster is right."""
    left = size = sum(level.size for level in cluster)
    value = 0.0
    for level in cluster:
        top = (math.comb(left, m) - math.comb(left - level.size, m)) / math.comb(size, m)
        value += top * level.right / level.size
        left -= level.size
    return value


class _Move(NamedTuple):
    """A way in which a cluster takes part in a subset."""

    taken: int
    """Samples of it."""
    tied: int
    """What it adds to the weights by which ties are broken."""
    chance: float
    gain: float
    """Its part of `tied` that is right."""


class _State(NamedTuple):
    """Subsets so far by samples taken (rows) and weights of the tied (columns)."""

    chances: Floats
    gains: Floats
    """Chances times the sum of what is right of the tied weights."""

    @classmethod
    def of(cls, free: int, k: int, ties: int, p: float) -> "_State":
        """Only samples that do not matter, each taken with chance p."""
        chances = np.zeros((k + 1, ties + 1))
        start = _chances(free, p, k)
        chances[: len(start), 0] = start
        return cls(chances, np.zeros_like(chances))

    def joined(self, moves: Iterable[_Move]) -> "_State":
        new = _State(np.zeros_like(self.chances), np.zeros_like(self.gains))
        rows, columns = self.chances.shape
        for move in moves:
            if move.taken < rows and move.tied < columns and move.chance:
                here = self.chances[: rows - move.taken, : columns - move.tied]
                gains = self.gains[: rows - move.taken, : columns - move.tied]
                new.chances[move.taken :, move.tied :] += move.chance * here
                new.gains[move.taken :, move.tied :] += move.chance * (gains + move.gain * here)
        return new

    def won(self) -> float:
        """With all k samples taken, the expected right part of the tied weights."""
        return float(np.sum(self.gains[-1, 1:] / np.arange(1, self.gains.shape[1])))


@lru_cache(maxsize=4096)
def _chances(size: int, p: float, most: int) -> Floats:
    """Of taking 0, 1 … up to `most` of `size` samples, each taken with chance p."""
    counts = range(min(size, most) + 1)
    if p == 1:
        return np.array([float(j == size) for j in counts])
    whole, yes, no = math.lgamma(size + 1), math.log(p), math.log1p(-p)
    return np.array(
        [math.exp(whole - math.lgamma(j + 1) - math.lgamma(size - j + 1) + j * yes + (size - j) * no) for j in counts]
    )


@lru_cache(maxsize=16)
def _subsets(n: int, k: int, draws: int, seed: int) -> Floats:
    """A row a subset, 1 where the sample is in it; all of them, or `draws` random ones."""
    if math.comb(n, k) <= ALL_SUBSETS:
        members = np.array(list(combinations(range(n), k)))
    else:
        members = np.random.default_rng(seed).random((draws, n)).argpartition(k - 1, axis=1)[:, :k]
    chosen = np.zeros((len(members), n))
    np.put_along_axis(chosen, members, 1.0, axis=1)
    return chosen


def _voted(pool: Pool, weights: Floats, chosen: Floats) -> float:
    """Mean over the subsets of the chance that a vote by weight returns a right answer."""
    belongs = np.zeros((pool.n, len(pool.clusters)))
    for column, cluster in enumerate(pool.clusters):
        belongs[[i for level in cluster for i in level], column] = 1.0
    columns = np.concatenate([belongs, belongs * weights[:, None]], axis=1)
    parts = (chosen[start : start + _ROWS] for start in range(0, len(chosen), _ROWS))
    return sum(_votes_won(pool, part, *np.split(part @ columns, 2, axis=1)) for part in parts) / len(chosen)


def _votes_won(pool: Pool, chosen: Floats, counts: Floats, masses: Floats) -> float:
    """Sum over subsets, given each answer's samples in them and their weight."""
    masses = np.where(counts > 0, masses, -1.0)
    top = masses.max(axis=1, keepdims=True)
    # The order of addition must not break a tie: the vote's own sums are correctly rounded.
    tied = counts * (masses >= top * (1 - 1e-12)) * (top >= 0)
    shares = tied.sum(axis=1)
    won = sum(tied[:, i] * _right(pool, cluster, chosen) for i, cluster in enumerate(pool.clusters))
    return float(np.sum(won / np.where(shares > 0, shares, 1.0)))


def _right(pool: Pool, cluster: Sequence[Level], chosen: Floats) -> Floats | float:
    """For each subset with a sample of the cluster, the chance that the best of them is right."""
    tallies = [_tally(pool, level) for level in cluster]
    if (right := sum(tally.right for tally in tallies)) in (0, sum(tally.size for tally in tallies)):
        return float(right > 0)
    value, decided = np.zeros(len(chosen)), np.zeros(len(chosen), dtype=bool)
    for level in cluster:
        present = chosen[:, level].sum(axis=1)
        hits = chosen[:, level] @ np.array([float(pool.correct[i]) for i in level])
        here = (present > 0) & ~decided
        value[here] = hits[here] / present[here]
        decided |= here
    return value
