"""What strategies must reach where mathematics says it: best-of-N with a perfect or noisy verifier, majority of N."""

import math
from collections.abc import Sequence
from functools import lru_cache

from bench.simulation.toy_prm import ToyPRM


def best_of_n_accuracy(p: float, n: int, prm: ToyPRM, points: int = 4000) -> float:
    """Chance that the best scored of n samples is right, each being right with chance `p`.

    With a perfect verifier that is 1 - (1 - p)^n. With noise it is the integral of n·p·f(x)·F(x)^(n-1), f the density
    of a right sample's score and F the distribution of any sample's, plus the masses that clipping puts on 0 and 1,
    where the first of equals wins.
    """
    if prm.quality == 1:
        return 1 - (1 - p) ** n
    right, wrong = prm.distribution(True), prm.distribution(False)

    def below(x: float) -> float:
        return p * right.cdf(x) + (1 - p) * wrong.cdf(x)

    middles = [(i + 0.5) / points for i in range(points)]
    inside = math.fsum(n * p * right.pdf(x) * below(x) ** (n - 1) for x in middles) / points
    at_one = (1 - below(1) ** n) * p * (1 - right.cdf(1)) / (1 - below(1))
    at_zero = below(0) ** (n - 1) * p * right.cdf(0)
    return inside + at_one + at_zero


def majority_accuracy(gold: float, wrong: Sequence[float], n: int) -> float:
    """Chance that the gold answer leads a vote of n samples, each gold or one of the wrong answers with these chances.

    A sum over multinomial counts. The first seen of equally frequent answers wins, which is any of them alike.
    """
    return math.fsum(_binomial(n, c, gold) * _leads(1 - gold, tuple(wrong), n - c, c, 1) for c in range(1, n + 1))


@lru_cache(maxsize=1 << 20)
def _leads(mass: float, wrong: tuple[float, ...], left: int, most: int, tied: int) -> float:
    """Chance that gold wins with `most` votes, `tied` answers having as many, when `left` fall on those in `wrong`."""
    if left > most * len(wrong):
        return 0.0
    if not wrong:
        return 1 / tied
    first, *others = wrong
    share = min(1.0, first / mass) if others and mass else 1.0
    return math.fsum(
        _binomial(left, c, share) * _leads(mass - first, tuple(others), left - c, most, tied + (c == most))
        for c in range(min(left, most) + 1)
    )


def _binomial(n: int, k: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)
