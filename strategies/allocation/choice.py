"""The choice of an arm for one question, by what its samples show and the table says."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from prm import ProcessRewardModel
from strategies.allocation.arms import VOTES, Arms, missing, pilot_wall_s, returns_best
from strategies.allocation.difficulty import Estimate
from strategies.allocation.pilot import Evidence
from strategies.allocation.policy_table import STOP, Cell, choose
from strategies.allocation.table import Table
from strategies.allocation.vote_value import Vote
from strategies.sampling.streams import sub_seed

HARDEST = 0
"""The bin whose questions get one attempt, and none after it."""


@dataclass(slots=True)
class Choice:
    """The arm that a question gets; it can change as the evidence grows, until it is locked.

    Args:
        prm: the reward model that arms may use.
        target: see `choose`.
        exploration: the chance that another arm that fits is taken at random.
    """

    table: Table
    evidence: Evidence
    prm: ProcessRewardModel | None
    target: float | None
    exploration: float
    cell: Cell | None = None
    """None before the first choice, and where no arm fits."""
    explored: bool = False
    """Whether the arm was taken at random."""
    _estimate: Estimate | None = None
    """By which the last choice was made."""
    _locked: bool = False
    _refused: list[Cell] = field(default_factory=list)

    @property
    def estimate(self) -> Estimate | None:
        """How hard the question is; None where the pilot drew nothing."""
        if self._estimate or not self.evidence.attempts:
            return self._estimate
        return self.evidence.estimate(self.table.difficulty)

    @property
    def bin(self) -> int | None:
        return self.table.bin_of(self.estimate.p) if self.estimate else None

    def make(self) -> Cell | None:
        """Chooses an arm by all samples so far. An arm stays that was taken at random, or for the hardest questions."""
        if self._locked:
            return self.cell
        is_first = self._estimate is None
        self._estimate = self.evidence.estimate(self.table.difficulty)
        place = self.table.bin_of(self._estimate.p)
        fitting = self._fitting(place)
        self.cell = choose(fitting, self.target)
        if is_first:
            self._explore(fitting)
        self._locked = self.explored or place == HARDEST
        return self.cell

    def refuse(self, cell: Cell) -> None:
        """Leaves out an arm that cannot do what the request asks; another one is chosen next."""
        self._refused.append(cell)
        self._locked = False

    def is_worth(self, cell: Cell, least: float) -> bool:
        """Whether an arm raises the chance of a right answer by `least` for a thousand tokens.

        An arm that needs no more samples always is, and so is one that was taken at random.
        """
        seen = self.evidence
        more = missing(cell, seen.drawn) if cell.strategy in VOTES else 1
        if not least or seen.short or not more or self.explored:
            return True
        by_table = cell.strategy not in VOTES or returns_best(cell, self.prm)
        return 1000 * (self._tabled_rate(cell) if by_table else self._voted_rate(more)) >= least

    def line(self) -> str:
        """The choice in words."""
        arm = f"{self.cell.strategy} {dict(self.cell.options) or ''}".strip() if self.cell else STOP
        known = self._estimate
        return f"one sample is right with a chance of about {known.p:.2f}: {arm}" if known else arm

    def _fitting(self, place: int) -> list[Cell]:
        seen = self.evidence
        cells, drawn = self.table.cells(place, seen.pilot, self.prm), seen.drawn
        arms = Arms(seen.task, seen.engine, self.prm, seen.account, pilot_wall_s(cells, drawn.pilot))
        return [cell for cell in cells if cell not in self._refused and arms.fits(cell, drawn)]

    def _explore(self, fitting: Sequence[Cell]) -> None:
        seed = self.evidence.task.sampling.seed
        rng = random.Random() if seed is None else random.Random(sub_seed(seed, "exploration"))
        others = [cell for cell in fitting if cell is not self.cell]
        if others and rng.random() < self.exploration:
            self.cell, self.explored = rng.choice(others), True

    def _voted_rate(self, most: int) -> float:
        """By how much up to `most` further votes raise the chance of a right answer at best, a token."""
        attempts, known = self.evidence.attempts, self._estimate
        votes = Counter(vote for vote in self.evidence.votes if vote is not None).most_common(2)
        first, second = ([count for _, count in votes] + [0, 0])[:2]
        tokens = max(1.0, self.evidence.drawn.tokens / max(1, len(attempts)))
        return Vote(known.p if known else 0.0, len(attempts), first, second).rate(most) / tokens

    def _tabled_rate(self, cell: Cell) -> float:
        """By how much an arm raises that chance by the table, a token."""
        stop = self.table.stop(cell.bin, self.evidence.pilot)
        gain = cell.accuracy - (stop.accuracy if stop else 0.0)
        return gain / max(1.0, cell.tokens.mean - self.evidence.drawn.tokens)
