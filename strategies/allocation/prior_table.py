"""The policy table where none was fitted: what published results say of other models.

Its accuracies order the arms and predict nothing. Snell et al. (2408.03314, figure 3): a weighted vote gains most on
easy questions, and a beam search loses there; the search wins where few samples are right; hardly anything helps on the
hardest. Zhang et al. (2501.07301, tables 6 and 10): with most reward models a plain vote is hard to beat, so on
questions of medium difficulty they weigh the vote rather than steer a search. The costs are what the pilot of the very
question makes of them.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from strategies.allocation.policy_table import STOP, Cell, Seconds, Tokens

EDGES = (0.1, 0.5)
"""Of P(one sample is right), between hard, medium and easy (2502.06703)."""
MARGIN = 0.1
"""Around each accuracy: all are equally unsure."""
SLOW = 1.5
"""The 95th percentile of a duration over what the pilot's pace makes of it."""
SPREAD = 0.5
"""Of one sample's tokens: their standard deviation over their mean."""


@dataclass(frozen=True, slots=True)
class PilotCost:
    """What a pilot has cost."""

    samples: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    steps: float = 1.0
    """Of one sample, on the mean."""
    prm_tokens: int = 0
    prm_wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Arm:
    """An arm on questions of one difficulty."""

    bin: int
    strategy: str
    n: int
    accuracy: float
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def all_options(self) -> dict[str, Any]:
        return {"n": self.n, **self.options}

    @property
    def steered(self) -> bool:
        """Whether the reward model scores each step."""
        return self.strategy == "beam_search"


def _votes(place: int, accuracies: dict[int, float]) -> list[_Arm]:
    return [_Arm(place, "self_consistency", n, accuracy) for n, accuracy in accuracies.items()]


def _weighted(place: int, accuracies: dict[int, float]) -> list[_Arm]:
    return [_Arm(place, "best_of_n", n, accuracy, {"selector": "weighted"}) for n, accuracy in accuracies.items()]


_STOP = {0: 0.02, 1: 0.25, 2: 0.78}
_VOTES = [
    *_votes(0, {8: 0.03, 16: 0.04}),
    *_votes(1, {8: 0.29, 16: 0.32, 32: 0.34}),
    *_votes(2, {8: 0.82, 16: 0.84}),
]
_SCORED = [
    *_weighted(0, {8: 0.035, 16: 0.045}),
    _Arm(0, "beam_search", 8, 0.08, {"beam_width": 4}),
    _Arm(0, "beam_search", 16, 0.1, {"beam_width": 4}),
    *_weighted(1, {8: 0.3, 16: 0.34, 32: 0.36}),
    *_weighted(2, {8: 0.83, 16: 0.86}),
]


def bin_of(p: float) -> int:
    """The bin of a question of which one sample is right with the chance p."""
    return bisect_right(EDGES, p)


def cells(pilot: PilotCost, *, scored: bool) -> tuple[Cell, ...]:
    """The table for one question; with `scored` also the arms that need a reward model."""
    stops = [_cell(place, STOP, {}, accuracy, _measured(pilot)) for place, accuracy in _STOP.items()]
    arms = [*_VOTES, *(_SCORED if scored else [])]
    return (*stops, *(_cell(a.bin, a.strategy, a.all_options, a.accuracy, _predicted(a, pilot)) for a in arms))


@dataclass(frozen=True, slots=True)
class _Cost:
    tokens: Tokens
    prm_tokens: Tokens
    wall_s: Seconds


def _cell(place: int, strategy: str, options: dict[str, Any], accuracy: float, cost: _Cost) -> Cell:
    low, high = max(0.0, accuracy - MARGIN), min(1.0, accuracy + MARGIN)
    # Near zero the margin would make equals of unequals.
    low = low or accuracy * MARGIN
    return Cell(place, strategy, options, accuracy, low, high, 0, cost.tokens, cost.prm_tokens, cost.wall_s)


def _measured(pilot: PilotCost) -> _Cost:
    wall_s = pilot.wall_s + pilot.prm_wall_s
    return _Cost(_exactly(pilot.tokens), _exactly(pilot.prm_tokens), Seconds(wall_s, wall_s))


def _predicted(arm: _Arm, pilot: PilotCost) -> _Cost:
    """A vote goes on from the pilot; a search begins with its steps, which saves less than is sure."""
    samples = max(1, pilot.samples)
    new = arm.n if arm.steered else max(0, arm.n - samples)
    mean = new * pilot.tokens / samples
    most = mean * (1 + 1.645 * SPREAD / math.sqrt(max(1, new)))
    tokens = Tokens(pilot.tokens + mean, pilot.tokens + most, pilot.tokens + mean)
    scored = new * pilot.prm_tokens / samples
    scorings, scored_tokens = (pilot.steps, scored * max(1.0, pilot.steps / 2)) if arm.steered else (1.0, scored)
    extra_s = pilot.wall_s + scorings * pilot.prm_wall_s if new else 0.0
    begun_s = pilot.wall_s + pilot.prm_wall_s
    return _Cost(
        tokens,
        _exactly(pilot.prm_tokens + scored_tokens),
        Seconds(begun_s + extra_s, begun_s + SLOW * extra_s),
    )


def _exactly(amount: float) -> Tokens:
    return Tokens(amount, amount, amount)
