"""What further votes gain a question, and what a vote that is drawn in waves costs at a price. Pure: asks no engine.

Where a token has a price, a question goes on for as long as a vote gains that (Damani et al. 2410.04707). The price at
which questions spend a budget together is the Lagrangian of sharing it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from strategies.allocation.shared_budget import beta_binomial, settled

MOST = 32
"""Votes that a question is thought to buy at most."""
CONFIDENCE = 0.95
"""How sure of its leader a vote ends."""
GRID = 4
"""Prices told apart between one and its double."""
LOWEST = 1e-7
"""A price that is as good as none, a token."""


class Vote(NamedTuple):
    """How a question's vote stands."""

    p: float
    """The chance that one sample is right, as far as the votes tell."""
    samples: int
    """Drawn."""
    first: int
    """Votes of the leader."""
    second: int
    """Of the next."""

    def reached(self, more: int = 0) -> float:
        """The chance that it is right after `more` votes for either of the two."""
        # What more than half of the samples say is what most of them say; below, that may be wrong.
        return min(1.0, 2 * shrunk(self.p, self.samples)) * settled(self.first, self.second, more)

    def rate(self, most: int) -> float:
        """What so many votes, or fewer, raise that chance by at best, a vote; 0 for none."""
        now = self.reached()
        return max(((self.reached(more) - now) / more for more in doublings(most)), default=0.0)


def shrunk(p: float, samples: int) -> float:
    """An estimate from so many samples with Jeffreys' prior: none is as sure as 0 or 1."""
    return (p * samples + 0.5) / (samples + 1)


def doublings(most: int) -> list[int]:
    """1, 2, 4 and so on, up to a number that is the last; nothing below 1."""
    return sorted({1 << i for i in range(most.bit_length())} | {most}) if most > 0 else []


@lru_cache(maxsize=65536)
def bought(vote: Vote, price: float) -> float:
    """Votes that a question buys on the mean while each has to gain so much; each wave is as large as all before it."""
    if settled(vote.first, vote.second) >= CONFIDENCE or vote.rate(MOST - vote.samples) < price:
        return 0.0
    wave = min(vote.samples, MOST - vote.samples)
    if wave < 1:
        return 0.0
    rest = 0.0
    for k in range(wave + 1):
        second, first = sorted((vote.first + k, vote.second + wave - k))
        chance = beta_binomial(k, wave, vote.first + 1, vote.second + 1)
        rest += chance * bought(Vote(vote.p, vote.samples + wave, first, second), price)
    return wave + rest


class Asking(NamedTuple):
    """A question after its pilot."""

    vote: Vote
    tokens: float
    """Of one sample."""


def price(questions: Sequence[Asking], tokens: float) -> float:
    """What a token has to gain for questions like these to buy so many together, on the mean; 0: all that they can."""

    def spent(step: int) -> float:
        return sum(q.tokens * bought(q.vote, _on_grid(_price(step) * q.tokens)) for q in questions)

    low, high = 0, round(GRID * math.log2(1 / LOWEST))
    if spent(low) <= tokens:
        return 0.0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spent(middle) <= tokens else (middle, high)
    return _price(high)


def _price(step: int) -> float:
    return float(LOWEST * 2 ** (step / GRID))


def _on_grid(rate: float) -> float:
    """One of few values, so that what was reckoned once holds for others."""
    return float(2 ** (round(GRID * math.log2(rate)) / GRID))
