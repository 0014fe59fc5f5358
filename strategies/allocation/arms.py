"""Arms of an allocation: which of them can answer a task, and what they still need after what was drawn already."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prm import ProcessRewardModel
from strategies.allocation.policy_table import STOP, Cell, complete_options
from strategies.core.account import Account
from strategies.core.contracts import Engine, Task
from strategies.core.registry import Entry, get

VOTES = ("self_consistency", "best_of_n")
"""Arms that are nothing but samples and a vote: they can be drawn in waves and stopped between."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What there is when an arm is chosen."""

    pilot: int
    """Samples of the pilot."""
    pilot_tokens: int
    pilot_prm_tokens: int
    pilot_wall_s: float
    samples: int
    """All that were drawn, the pilot's among them."""
    tokens: int


@dataclass(frozen=True, slots=True)
class Arms:
    """What can be spent on one task.

    Args:
        stop_wall_s: what the table says that a pilot alone takes; None where it does not.
    """

    task: Task
    engine: Engine
    prm: ProcessRewardModel | None
    account: Account
    stop_wall_s: float | None

    def fits(self, cell: Cell, drawn: Drawn) -> bool:
        """Whether an arm can answer the task within what is left; the 95th percentile of its costs decides."""
        if cell.strategy == STOP:
            return True
        return self.able(cell) and self._affords(cell, drawn)

    def able(self, cell: Cell) -> bool:
        """Whether the engine, the reward model and the form of the answer let an arm run at all."""
        entry, options = get(cell.strategy), complete_options(cell)
        sampling, prompt = self.task.sampling, self.task.prompt
        formed = sampling.structured is not None or sampling.calling is not None or bool(prompt.template.get("tools"))
        penalised = bool(sampling.presence_penalty or sampling.frequency_penalty)
        whole = penalised or sampling.include_stop or sampling.prompt_logprobs is not None
        return (
            (self.prm is not None or not _scores(entry, options))
            and (self.engine.continues or not entry.continues)
            and (entry.formed or not formed)
            and (entry.whole or not whole)
            and (entry.whole or entry.continues or not sampling.min_tokens)
            and (entry.formed or entry.continues or bool(prompt.messages))
            and self.task.choices <= options.get("n", 1)
        )

    def _affords(self, cell: Cell, drawn: Drawn) -> bool:
        account, budget = self.account, self.account.budget
        limits = [
            (self._tokens(cell, drawn), account.tokens_left),
            (self._samples(cell, drawn), account.samples_left),
            (self._seconds(cell, drawn), account.seconds_left),
        ]
        if budget.max_prm_tokens is not None:
            new = max(0.0, cell.prm_tokens.p95 - drawn.pilot_prm_tokens)
            limits.append((new, budget.max_prm_tokens - account.usage.prm_tokens))
        return all(left is None or need <= left for need, left in limits)

    def _tokens(self, cell: Cell, drawn: Drawn) -> float:
        if cell.strategy not in VOTES:
            return max(0.0, cell.tokens.p95 - drawn.pilot_tokens)
        # A vote that has all its samples needs no more, whatever its size has cost elsewhere.
        return max(0.0, cell.tokens.p95 - drawn.tokens) if missing(cell, drawn) else 0.0

    def _samples(self, cell: Cell, drawn: Drawn) -> float:
        if cell.strategy in VOTES:
            return missing(cell, drawn)
        return int(complete_options(cell).get("n", 1))

    def _seconds(self, cell: Cell, drawn: Drawn) -> float:
        """By how much slower or faster than the table's the pilot was, the rest will be."""
        if self.stop_wall_s is None:
            return cell.wall_s.p95
        pace = drawn.pilot_wall_s / self.stop_wall_s if self.stop_wall_s else 1.0
        rest = max(0.0, cell.wall_s.p95 - self.stop_wall_s) * pace
        planned = int(cell.options.get("n", 0)) - drawn.pilot
        if cell.strategy in VOTES and planned > 0:
            rest *= missing(cell, drawn) / planned
        return rest


def pilot_wall_s(cells: Sequence[Cell], samples: int) -> float | None:
    """Seconds that a pilot takes by a bin's cells: those of its vote, or of one that needs no more samples."""
    seconds = [
        cell.wall_s.p50
        for cell in cells
        if cell.strategy == STOP or (cell.strategy in VOTES and int(complete_options(cell)["n"]) <= samples)
    ]
    return min(seconds, default=None)


def missing(cell: Cell, drawn: Drawn) -> int:
    """Samples that a vote still lacks."""
    return max(0, int(complete_options(cell)["n"]) - drawn.samples)


def returns_best(cell: Cell, prm: ProcessRewardModel | None) -> bool:
    """Whether a vote returns the sample with the best score, so that the votes do not show when it is settled."""
    if cell.strategy not in VOTES:
        return False
    selector = complete_options(cell)["selector"] or (prm.selector if prm else None)
    return bool(selector == "best")


def _scores(entry: Entry, options: dict[str, Any]) -> bool:
    """Whether an arm cannot do without a reward model."""
    return entry.needs_prm or (entry.name in VOTES and options["selector"] in ("best", "weighted", None))
