"""What a question would buy next out of a budget that it shares with others. Knows no server and no records."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from strategies.allocation.arms import VOTES
from strategies.allocation.difficulty import Attempt, estimate
from strategies.allocation.policy_table import STOP, Policy
from strategies.allocation.shared_budget import Increment, Point, hull, increments, verified
from strategies.allocation.vote_value import Vote, shrunk
from strategies.core.contracts import Selector


class Bid(NamedTuple):
    """More samples, and what they are worth."""

    samples: int
    increment: Increment


class Known(NamedTuple):
    """What is known of a question."""

    attempts: Sequence[Attempt]
    """Its samples that came to something."""
    drawn: int
    """All of them."""
    sample_tokens: float
    """What one costs on the mean, the reward model's tokens included."""


@dataclass(frozen=True, slots=True)
class Bidder:
    """Reckons the marginal gain of further votes (2410.04707): from a table, or from the votes so far."""

    selector: Selector
    samples: int
    """That a question has at most."""
    policy: Policy | None = None
    """Whose table tells what more samples reach; None: the votes do."""

    def __call__(self, known: Known, most: float, at_once: int) -> Bid | None:
        """The next bid; None where nothing is gained.

        Args:
            known: of the question.
            most: what one sample can cost.
            at_once: samples that can be paid.
        """
        room = min(at_once, self.samples - known.drawn)
        if room < 1 or not known.attempts:
            return None
        values = self._tabled(known) if self.policy else self._voted(known, room)
        counts = [0, *(count for count in values if 0 < count <= room)]
        points = [Point(known.sample_tokens * count, values[count]) for count in counts]
        kept = hull(points)
        if len(kept) < 2:
            return None
        count = counts[kept[1]]
        (step, *_) = increments([points[i] for i in kept])
        return Bid(count, Increment(step.gain, max(1.0, step.tokens), count * most))

    def _voted(self, known: Known, room: int) -> dict[int, float]:
        """Chance of a right answer by further samples, as far as the votes tell."""
        n = len(known.attempts)
        p = estimate(known.attempts, None).p
        votes = Counter(a.key for a in known.attempts if a.key is not None).most_common(2)
        first, second = ([count for _, count in votes] + [0, 0])[:2]
        reached: Callable[[int], float] = (
            (lambda more: verified(shrunk(p, n), n + more))
            if self.selector == "best"
            else Vote(p, n, first, second).reached
        )
        return {more: reached(more) for more in (0, *(1 << i for i in range(room.bit_length())))}

    def _tabled(self, known: Known) -> dict[int, float]:
        """The same of the cells of the question's bin; what was drawn already counts as the largest vote below it."""
        policy = self.policy
        if policy is None:
            raise ValueError("there is no table")
        place = policy.bin_of(estimate(known.attempts, policy.difficulty).p)
        sizes: dict[int, float] = {}
        for cell in policy.cells_of(place):
            if cell.strategy == STOP:
                sizes[policy.pilot.n] = cell.accuracy
            elif cell.strategy in VOTES and cell.options.get("selector", "majority") == self.selector:
                sizes[int(cell.options["n"])] = cell.accuracy
        below = [accuracy for n, accuracy in sizes.items() if n <= known.drawn]
        return {0: max(below, default=0.0)} | {n - known.drawn: a for n, a in sizes.items() if n > known.drawn}
