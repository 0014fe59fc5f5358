"""From trials to a policy: how good and how dear each arm is at each difficulty (2408.03314, 2502.06703)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calibration.arms import Arm, Floats, Places, Trials
from bench.calibration.difficulty_fit import FOLDS, DifficultyFit, fit
from bench.stats.intervals import wilson
from strategies.allocation.policy_table import Cell, Pilot, Policy, Seconds, Tokens
from strategies.allocation.shared_budget import Point, hull

Bins = Places
"""Of each pilot, problems x draws: 0 is the hardest."""
EDGES = (0.1, 0.5)
"""Of P(one sample is right), between hard, medium and easy (2502.06703)."""


class ArmCell(NamedTuple):
    """An arm on the questions of one bin."""

    arm: int
    cell: Cell

    @property
    def point(self) -> Point:
        """Policy and reward model tokens count alike."""
        return Point(self.cell.tokens.mean + self.cell.prm_tokens.mean, self.cell.accuracy)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A difficulty model and what the arms reach where it sees each difficulty."""

    arms: tuple[Arm, ...]
    edges: tuple[float, ...]
    difficulty: DifficultyFit
    cells: tuple[tuple[ArmCell, ...], ...]
    """By bin; only those on the concave hull of accuracy over cost, by rising cost. The first is the pilot's vote, or
    another that costs no more."""
    agreed: float | None
    """Accuracy of the pilots that agree; None where none does."""


def fitted(trials: Trials, edges: Sequence[float] = EDGES, *, folds: int = FOLDS, seed: int = 0) -> Fitted:
    """The policy that these trials suggest.

    Raises:
        RuntimeError: scikit-learn is not installed.
        ValueError: there are fewer problems than folds.
    """
    model = fit(trials.names, trials.features, trials.ability, folds=folds, seed=seed)
    cells = cells_of(trials, bins_of(model(trials.features), edges), len(edges) + 1)
    right = trials.after.right[0][trials.agreed]
    return Fitted(trials.arms, tuple(edges), model, cells, float(right.mean()) if right.size else None)


class Origin(NamedTuple):
    """What a policy holds for, and what it was fitted from."""

    model: str
    prm: str | None
    prompt: str
    source: str
    pilot: int


def policy_of(found: Fitted, origin: Origin, ece: float, problems: int) -> Policy:
    """As the server reads it.

    Args:
        found: the fit.
        origin: what it is of.
        ece: its calibration error on problems that it had not seen.
        problems: from which it was fitted.
    """
    return Policy(
        model=origin.model,
        prm=origin.prm,
        prompt=origin.prompt,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=origin.source,
        pilot=Pilot(origin.pilot),
        difficulty=found.difficulty.model(ece, problems),
        edges=found.edges,
        cells=tuple(cell for menu in found.cells for _, cell in menu),
        agreed=found.agreed,
    )


def bins_of(probability: Floats, edges: Sequence[float]) -> Bins:
    """What is exactly at an edge is above it."""
    return np.searchsorted(np.array(edges), probability, side="right")


def cells_of(trials: Trials, bins: Bins, count: int) -> tuple[tuple[ArmCell, ...], ...]:
    """The hull of each bin: of the pilots that do not agree, because only for those an arm is chosen.

    A bin that none of them falls into has the hull of all of them.
    """
    open_ = ~trials.agreed if not trials.agreed.all() else np.ones_like(trials.agreed)
    found = []
    for number in range(count):
        here = open_ & (bins == number)
        cells = _cells(trials, here if here.any() else open_, number)
        found.append(tuple(cells[i] for i in hull([cell.point for cell in cells])))
    return tuple(found)


def _cells(trials: Trials, here: NDArray[np.bool_], number: int) -> list[ArmCell]:
    """Of all arms on some pilots."""
    weights = here.sum(axis=1)
    # A problem whose pilots fall into several bins counts for less in each (Kish's effective number).
    effective = weights.sum() ** 2 / (weights**2).sum()
    found = []
    for place, arm in enumerate(trials.arms):
        if arm.alone_only:
            continue
        right, tokens, prm_tokens, wall_s = (part[place][here] for part in trials.after)
        accuracy = float(right.mean())
        low, high = wilson(accuracy * effective, effective)
        cell = Cell(
            number,
            arm.strategy,
            dict(arm.options),
            accuracy,
            # Rounding may put a bound of 0 or 100 % on the wrong side.
            min(low, accuracy),
            max(high, accuracy),
            int((weights > 0).sum()),
            _tokens(tokens),
            _tokens(prm_tokens),
            Seconds(*_middle_and_tail(wall_s)),
        )
        found.append(ArmCell(place, cell))
    return found


def _tokens(counts: Floats) -> Tokens:
    return Tokens(*_middle_and_tail(counts), float(counts.mean()))


def _middle_and_tail(values: Floats) -> tuple[float, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return float(p50), float(p95)
