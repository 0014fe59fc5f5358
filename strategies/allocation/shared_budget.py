"""A shared budget over many questions, spread by marginal gain (Damani et al. 2410.04707). Pure: asks no engine.

A question's curve says how probable a right answer is at what cost. Only its concave hull is worth buying, increment by
increment; the next token goes wherever a token gains most. With increments of one price that is the optimum, with
others it is the optimum of what it has spent.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from strategies.sampling.stopping import chance_ahead


class Point(NamedTuple):
    """A way to answer a question."""

    tokens: float
    """What it costs altogether."""
    accuracy: float
    """How probable it is that the answer is right."""


@dataclass(frozen=True, slots=True)
class Increment:
    """What a question can buy next."""

    gain: float
    """Rise of the chance that its answer is right."""
    tokens: float
    """What it is expected to cost; above 0."""
    most: float | None = None
    """What it can cost at most, which has to be left for it; None: what is expected."""

    @property
    def reserve(self) -> float:
        return self.tokens if self.most is None else self.most


class Offer(NamedTuple):
    """An increment that has been bought and not yet paid."""

    question: int
    increment: Increment


class SharedBudget:
    """Tokens that many questions share. Sells the best increment that is on offer and fits, and takes what it cost.

    Each question offers one increment at a time, the next one after the last is paid. Equals are served in the order
    of the questions.

    Args:
        tokens: the budget.
    """

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens
        self.spent = 0.0
        self._reserved = 0.0
        self._offers: list[tuple[float, int, Increment]] = []

    @property
    def left(self) -> float:
        """Neither spent nor reserved."""
        return self.tokens - self.spent - self._reserved

    def offer(self, question: int, increment: Increment) -> None:
        """Puts a question's next increment on offer; one that gains nothing is not bought.

        Raises:
            ValueError: it costs nothing.
        """
        if increment.tokens <= 0:
            raise ValueError(f"an increment costs more than 0 tokens, got {increment.tokens}")
        if increment.gain > 0:
            heapq.heappush(self._offers, (-increment.gain / increment.tokens, question, increment))

    def buy(self) -> Offer | None:
        """The increment that gains most a token of those that fit what is left; None if none does, by now."""
        too_large = []
        bought = None
        while self._offers and bought is None:
            rate, question, increment = heapq.heappop(self._offers)
            if increment.reserve <= self.left:
                bought = Offer(question, increment)
            else:
                too_large.append((rate, question, increment))
        for kept in too_large:
            heapq.heappush(self._offers, kept)
        if bought:
            self._reserved += bought.increment.reserve
        return bought

    def pay(self, reserved: float, tokens: float) -> None:
        """Takes what something has cost that so much was reserved for."""
        self._reserved -= reserved
        self.spent += tokens


def hull(points: Sequence[Point]) -> list[int]:
    """The indexes of the upper concave hull, by rising cost and accuracy; the cheapest point is its first.

    Of equals the first stands; what no mixture of others can beat at its cost is kept, all else is left out.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i].tokens, -points[i].accuracy, i))
    kept: list[int] = []
    for i in order:
        if kept and points[i].accuracy <= points[kept[-1]].accuracy:
            continue
        while len(kept) > 1 and _slope(points[kept[-2]], points[kept[-1]]) <= _slope(points[kept[-1]], points[i]):
            kept.pop()
        kept.append(i)
    return kept


def _slope(one: Point, other: Point) -> float:
    return (other.accuracy - one.accuracy) / (other.tokens - one.tokens)


def increments(points: Sequence[Point]) -> list[Increment]:
    """From each point of a hull to the next."""
    return [Increment(there.accuracy - here.accuracy, there.tokens - here.tokens) for here, there in pairwise(points)]


@lru_cache(maxsize=65536)
def settled(first: int, second: int, more: int = 0) -> float:
    """The chance that a vote will name the answer that the model gives most often, after `more` votes for either.

    Of two answers with so many votes, every share of the first being as likely before (Beta(1, 1), 2305.11860). Each
    outcome of the votes to come is as likely as those that were seen make it, and the leader after it is returned.
    """
    total = 0.0
    for gained in range(more + 1):
        a, b = first + gained, second + more - gained
        total += beta_binomial(gained, more, first + 1, second + 1) * max(chance_ahead(a, b), chance_ahead(b, a))
    return total


def beta_binomial(k: int, n: int, a: int, b: int) -> float:
    """The chance of k of n, each share being as likely as Beta(a, b) has it."""

    def beta(x: int, y: int) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return math.comb(n, k) * math.exp(beta(k + a, n - k + b) - beta(a, b))
