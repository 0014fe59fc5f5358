"""What an allocation decided, and how it says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.allocation.difficulty import Estimate
from strategies.allocation.policy_table import STOP, Cell
from strategies.allocation.prior_table import PilotCost
from strategies.core.contracts import Final

HARDEST = 0
"""The bin on which there is one attempt, and none after it."""

Reason = Literal["unanimous", "settled", "no_gain", "no_votes", "no_better_arm", "done", "budget", "failed"]
"""Why no more was spent: the pilot agreed; the vote's leader will stay it; more votes promised too little; no sample
gives an answer to vote on; no arm that fits beats what was drawn; the arm came to its end; the budget did; the arm
failed."""


@dataclass(slots=True)
class Choice:
    """The arm."""

    cell: Cell | None = None
    """None before the first choice, and where none fits."""
    made: bool = False
    locked: bool = False
    """Whether it stays, whatever further votes say."""
    explored: bool = False
    failed: bool = False
    refused: list[Cell] = field(default_factory=list)
    """Arms that cannot do what the request asks."""

    def refuse(self, cell: Cell) -> None:
        self.refused.append(cell)
        self.locked = False


@dataclass(frozen=True, slots=True)
class Pilot:
    """What the first samples cost and said."""

    cost: PilotCost
    told: Mapping[str, Any]
    """Its difficulty and features."""


def decision(
    pilot: Pilot,
    known: Estimate | None,
    here: int | None,
    cell: Cell | None,
    predicted: float | None,
    final: Final,
    reason: Reason,
    *,
    explored: bool,
) -> dict[str, Any]:
    """The decision as JSON, without anything that a client or a model wrote.

    Args:
        pilot: the first samples.
        known: how hard the question was found last; None where nothing was drawn.
        here: the bin that this is.
        cell: what was chosen; None: nothing that the table knows.
        predicted: how accurate such answers are; None where that was not measured.
        final: the search's end.
        reason: why it ended.
        explored: whether the arm was drawn at random.
    """
    return {
        "pilot": {
            "n": pilot.cost.samples,
            "tokens": pilot.cost.tokens,
            "prm_tokens": pilot.cost.prm_tokens,
            **pilot.told,
        },
        "difficulty": round(known.p, 6) if known else None,
        "interval": [round(known.low, 6), round(known.high, 6)] if known else None,
        "estimated_from": known.source if known else None,
        "bin": here,
        "chosen": cell.strategy if cell else STOP,
        "options": dict(cell.options) if cell else {},
        "predicted_accuracy": predicted,
        "predicted_tokens": round(cell.tokens.mean, 1) if cell else None,
        "agreement": agreement(final),
        "explored": explored,
        "unsolved": here == HARDEST and (final.confidence or 0.0) <= 0.5,
        "stop_reason": reason,
    }


def agreement(final: Final) -> float | None:
    """The returned answer's share of the votes; None without any."""
    total = sum(vote.count for vote in final.votes)
    own = final.vote.count if final.vote else 0
    return own / total if total else None
