"""The table that one allocation goes by: the fitted policy where it holds for the request, else published results."""

from dataclasses import dataclass

from prm import ProcessRewardModel
from strategies.allocation import prior_table as priors
from strategies.allocation.difficulty import Difficulty
from strategies.allocation.policy_table import STOP, Cell, Policy, in_use
from strategies.allocation.prior_table import PilotCost
from strategies.core.account import Account
from strategies.core.contracts import Engine, Task, text_of

PILOT = 4
"""Samples of a pilot without a fitted policy: Beta stopping at 0.95 never stops before four agree (2305.11860)."""
TYPICAL = 256
"""Tokens of a solution where nothing was measured: a budget below those of four makes the pilot smaller."""


@dataclass(frozen=True, slots=True)
class Table:
    """What each arm reaches and costs on questions of each difficulty."""

    fitted: Policy | None = None
    """None: published results stand in for it."""
    note: str | None = None
    """Why the server's policy does not hold for the request."""

    @classmethod
    def of(cls, task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account) -> "Table":
        """The table for one request."""
        if account.policy is None:
            return cls()
        first = task.prompt.messages[:1]
        system = "".join(text_of(turn) for turn in first if turn["role"] in ("system", "developer"))
        note = account.policy.mismatch(engine.model, prm.name if prm else None, system)
        used = in_use(account)
        return cls(used.policy if used and not note else None, note)

    @property
    def difficulty(self) -> Difficulty | None:
        """The fitted model of difficulty; None: the votes show it."""
        return self.fitted.difficulty if self.fitted else None

    @property
    def can_score(self) -> bool:
        """Whether it covers a reward model; one that was fitted without any says nothing of arms with one."""
        return self.fitted is None or bool(self.fitted.prm)

    def needs_scores(self, prm: ProcessRewardModel) -> bool:
        """Whether the pilot's scores show the difficulty; one fitted on pilots without scores does not pay for them."""
        if self.difficulty:
            return self.difficulty.needs_scores
        return self.fitted is not None or prm.trained

    def bin_of(self, p: float) -> int:
        """The bin of a question of which one sample is right with the chance p."""
        return self.fitted.bin_of(p) if self.fitted else priors.bin_of(p)

    def cells(self, place: int, pilot: PilotCost, prm: ProcessRewardModel | None) -> list[Cell]:
        """The arms for questions of one bin.

        Published results are those of trained reward models, so there they need one; a judge leads no arm of theirs.
        """
        if self.fitted:
            return self.fitted.cells_of(place)
        return [cell for cell in priors.cells(pilot, scored=prm is not None and prm.trained) if cell.bin == place]

    def stop(self, place: int, pilot: PilotCost) -> Cell | None:
        """What the pilot's vote alone reaches on questions of one bin."""
        return next((cell for cell in self.cells(place, pilot, None) if cell.strategy == STOP), None)

    def pilot_size(self, task: Task, account: Account) -> int:
        """Samples of the pilot; fewer where the budget would cut them all."""
        n = self.fitted.pilot.n if self.fitted else PILOT
        if (left := account.tokens_left) is not None:
            n = min(n, max(1, int(left / self._solution_tokens(task, account))))
        return max(n, task.choices)

    def _solution_tokens(self, task: Task, account: Account) -> float:
        """Tokens of a solution: the table's, else those of recent answers, and no more than one may have."""
        stops = [cell.tokens.mean for cell in self.fitted.cells if cell.strategy == STOP] if self.fitted else []
        if self.fitted and stops:
            return max(1.0, sum(stops) / len(stops) / self.fitted.pilot.n)
        usual = account.latency.answer_tokens or TYPICAL
        return max(1.0, min(usual, task.sampling.max_tokens or usual))
