"""Chance that k of a problem's n stored samples give a right answer. Knows no model and no file.

The samples of a problem are drawn alike, so any k of them, in any order, are as likely as any others. The server's own
vote (`strategies.answers.voting`) decides over each of these arrangements, or over a part of them drawn at random where
they are many. An estimate is the share of arrangements in which the vote returns a right answer. How a vote breaks ties
is written there and nowhere here.
"""

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, islice, permutations
from typing import Literal, NamedTuple, get_args

from bench.rescoring.pools import Pool
from strategies.answers import vote

Measure = Literal["pass", "majority", "best", "weighted"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
DRAWS = 128
"""Arrangements of one problem. What their number adds to the error of an estimate over problems is a sixteenth of one
problem's spread, far less than what the number of problems leaves open.
"""
_ORDERS = 16
"""Orders in which a subset is taken where all subsets are: only ties depend on the order."""

Arrangement = tuple[int, ...]


class Estimate(NamedTuple):
    """Chance that the returned answer is right (`pass`: that one of the samples is)."""

    value: float
    all_subsets: bool
    """Whether every subset of k samples took part; else a random part of them."""


def expected(pool: Pool, measure: Measure, k: int, *, draws: int = DRAWS, seed: str = "0") -> Estimate:
    """Returns the estimate for one problem; `pass` is that of Chen et al. (2107.03374).

    Raises:
        ValueError: k is not in 1 … n, or `best` or `weighted` is asked for and a sample with an answer has no score.
    """
    if not 1 <= k <= pool.n:
        raise ValueError(f"k is 1 to {pool.n}, the number of samples; got {k}")
    if measure in ("best", "weighted"):
        for i, (candidate, key) in enumerate(zip(pool.candidates, pool.keys, strict=True)):
            if key is not None and candidate.score is None:
                raise ValueError(f"sample {i} has no score")
    right = sum(pool.correct)
    if measure == "pass" or right in (0, pool.n):
        # Rounding keeps what is certain at 0 or 1.
        return Estimate(round(1 - math.comb(pool.n - right, k) / math.comb(pool.n, k), 12), True)
    arrangements = _arrangements(pool.n, k, draws, seed)
    hits = sum(pool.correct[_returned(pool, arrangement, measure)] for arrangement in arrangements)
    return Estimate(hits / len(arrangements), math.comb(pool.n, k) <= draws)


def _returned(pool: Pool, arrangement: Arrangement, measure: Literal["majority", "best", "weighted"]) -> int:
    """The sample whose answer the server's vote over these samples returns."""
    outcome = vote([pool.candidates[i] for i in arrangement], [pool.keys[i] for i in arrangement], measure)
    return arrangement[outcome.ranking[0]]


@lru_cache(maxsize=1024)
def _arrangements(n: int, k: int, draws: int, seed: str) -> tuple[Arrangement, ...]:
    """All arrangements if at most `draws`, else all subsets in random orders if at most `draws`, else random ones."""
    if math.perm(n, k) <= draws:
        return tuple(permutations(range(n), k))
    drawn = random.Random(f"{seed} {k} of {n}")
    if (subsets := math.comb(n, k)) <= draws:
        orders = range(min(_ORDERS, draws // subsets))
        shuffled = [tuple(drawn.sample(subset, k)) for subset in combinations(range(n), k)]
        # Rotations put each sample first about equally often, which is what ties depend on.
        return tuple(order[turn % k :] + order[: turn % k] for order in shuffled for turn in orders)
    return tuple(islice(_blocks(n, k, drawn), draws))


def _blocks(n: int, k: int, drawn: random.Random) -> Iterator[Arrangement]:
    """Random orders of all samples, cut into as many parts of k as they have: each sample takes part about as often."""
    while True:
        order = drawn.sample(range(n), n)
        yield from (tuple(order[start : start + k]) for start in range(0, n - k + 1, k))
