"""What an allocation decided, as JSON."""

from typing import Any, Literal

from strategies.allocation.choice import HARDEST, Choice
from strategies.allocation.difficulty import features
from strategies.allocation.policy_table import STOP, Cell
from strategies.core.contracts import Final

Reason = Literal["unanimous", "settled", "no_gain", "no_votes", "no_better_arm", "done", "budget", "failed"]
"""Why no more was spent: the pilot agreed; the vote's leader will stay it; more votes promised too little; no sample
gives an answer to vote on; no arm that fits beats what was drawn; the arm came to its end; the budget did; the arm
failed."""


def decision(choice: Choice, final: Final, reason: Reason) -> dict[str, Any]:
    """The decision, without anything that a client or a model wrote.

    Args:
        choice: the arm, and the evidence by which it was chosen.
        final: the search's end.
        reason: why it ended.
    """
    table, estimate, place = choice.table, choice.estimate, choice.bin
    cell = choice.cell or (None if place is None else table.stop(place, choice.evidence.pilot))
    return {
        "policy": "fitted" if table.fitted else "prior",
        "policy_note": table.note,
        "pilot": _pilot(choice),
        "difficulty": round(estimate.p, 6) if estimate else None,
        "interval": [round(estimate.low, 6), round(estimate.high, 6)] if estimate else None,
        "estimated_from": estimate.source if estimate else None,
        "bin": place,
        "chosen": cell.strategy if cell else STOP,
        "options": dict(cell.options) if cell else {},
        "predicted_accuracy": _predicted(choice, cell, reason),
        "predicted_tokens": round(cell.tokens.mean, 1) if cell else None,
        "agreement": agreement(final),
        "explored": choice.explored,
        "unsolved": place == HARDEST and (final.confidence or 0.0) <= 0.5,
        "stop_reason": reason,
    }


def agreement(final: Final) -> float | None:
    """The returned answer's share of the votes; None without any."""
    total = sum(vote.count for vote in final.votes)
    own = final.vote.count if final.vote else 0
    return own / total if total else None


def _pilot(choice: Choice) -> dict[str, Any]:
    """What the pilot cost and showed."""
    evidence, cost = choice.evidence, choice.evidence.pilot
    pilot: dict[str, Any] = {"n": cost.samples, "tokens": cost.tokens, "prm_tokens": cost.prm_tokens}
    if attempts := evidence.pilot_attempts:
        difficulty = evidence.estimate(choice.table.difficulty, attempts).p
        values = {name: round(value, 6) for name, value in features(attempts).items()}
        pilot |= {"difficulty": round(difficulty, 6), "features": values}
    return pilot


def _predicted(choice: Choice, cell: Cell | None, reason: Reason) -> float | None:
    """The accuracy that the table predicts; None where nothing was measured."""
    if reason == "unanimous":
        return choice.table.fitted.agreed if choice.table.fitted else None
    return cell.accuracy if cell and cell.problems else None
