"""An arm at work on a question of which some samples were drawn before."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from prm import Aggregation, PRMError, ProcessRewardModel
from strategies.allocation.arms import VOTES
from strategies.allocation.decision import Reason
from strategies.allocation.pilot import Evidence
from strategies.allocation.policy_table import Cell, complete_options
from strategies.allocation.replay import ReplayEngine
from strategies.core.account import BudgetSpent
from strategies.core.contracts import Event, Final, Incumbent, Progress, Refused
from strategies.core.registry import get
from strategies.sampling.draw import elect


@dataclass(slots=True)
class ArmRun:
    """One run of an arm, which begins with the samples that there are.

    Args:
        aggregation: how step scores become one score where the arm leaves that open.
    """

    cell: Cell
    evidence: Evidence
    prm: ProcessRewardModel | None
    aggregation: Aggregation | None
    outcome: Final | None = None
    """The arm's own end."""
    refused: bool = False
    """Whether the arm cannot do what the request asks."""
    failed: bool = False

    @property
    def reason(self) -> Reason | None:
        """Why nothing is spent after it; None: another arm may be chosen."""
        if self.failed:
            return "failed"
        if self.evidence.account.stop_reason or self.evidence.short:
            return "budget"
        return "done" if self.outcome else None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Runs the arm. A failure leaves the answer to what was drawn before.

        Raises:
            PRMError: the reward model failed.
        """
        seen, name = self.evidence, self.cell.strategy
        engine = self._engine()
        try:
            run = get(name).run(seen.task, engine, self.prm, seen.account, **self._options(engine.kept))
            async with aclosing(run) as events:
                async for event in events:
                    if isinstance(event, Final):
                        self.outcome = event
                    elif isinstance(event, Progress) or _is_whole(event):
                        yield event
        except Refused as refusal:
            self.refused = True
            yield Progress(f"{name} is left out: {refusal}")
        except BudgetSpent:
            seen.short = True
        except PRMError:
            raise
        except Exception as error:
            seen.fail(error)
            self.failed = True
            yield Progress(f"{name} failed: what was drawn before decides")

    async def joined(self, outcome: Final) -> Final:
        """The arm's end together with what was drawn before; the ends of a search and the pilot's samples vote."""
        texts = Counter(candidate.text for candidate in outcome.candidates)
        rest = []
        for candidate in self.evidence.as_requested(self.evidence.candidates):
            if texts[candidate.text]:
                texts[candidate.text] -= 1
            else:
                rest.append(candidate)
        if not rest:
            return outcome
        everyone = (*outcome.candidates, *rest)
        if get(self.cell.strategy).continues or not outcome.best.sample.finished:
            return await elect(everyone, outcome.selector, self.evidence.account.seconds_left)
        places = range(len(outcome.candidates), len(everyone))
        return replace(outcome, candidates=everyone, ranking=(*outcome.ranking, *places))

    def _engine(self) -> ReplayEngine:
        seen = self.evidence
        engine = ReplayEngine(seen.engine, seen.task.prompt, seen.task.sampling)
        engine.keep(seen.samples)
        return engine

    def _options(self, kept: int) -> dict[str, object]:
        """The arm's options; a vote takes as many samples as there are, which were drawn in waves."""
        options = complete_options(self.cell)
        if self.cell.strategy in VOTES:
            options |= {"n": max(1, kept)} | ({"stopping": "none"} if "stopping" in options else {})
        if options.get("aggregation", "") is None:
            options["aggregation"] = self.aggregation
        return options


def _is_whole(event: Event) -> bool:
    """Whether it is an incumbent that may take the place of the pilot's."""
    return isinstance(event, Incumbent) and event.candidate.sample.finished
