"""The events of a search as its reader gets them: in time, with an answer at the end, and seen by who watches."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Candidate, Delta, EngineGone, Event, Final, Incumbent
from strategies.core.deadline import Late

GRACE_S = 0.05
"""Seconds behind the deadline in which a strategy can end by itself, with all that it has."""


@dataclass(slots=True)
class Outcome:
    """What has come of a search."""

    first_s: float | None = None
    """When the answer's first token was there, in seconds from the start."""
    final: Final | None = None
    """The end, once it has come."""


async def anytime(events: AsyncGenerator[Event, None], account: Account) -> AsyncGenerator[Event, None]:
    """The events of a search, ended by its incumbent where it is late or lets the end of its budget through.

    So it ends, too, where it has an incumbent and lets through that the engine is gone.
    """
    best: Candidate | None = None
    async with aclosing(events):
        try:
            while event := await account.deadline.within(anext(events, None), GRACE_S):
                if isinstance(event, Incumbent):
                    best = event.candidate
                yield event
            return
        except BudgetSpent:
            pass
        except Late:
            account.stop("deadline")
        except EngineGone:
            if best is None:
                raise
            account.stop("engine")
    yield Final((best or Candidate.empty(),), (0,))


def watched(
    events: AsyncGenerator[Event, None], account: Account, outcome: Outcome | None = None
) -> AsyncGenerator[Event, None]:
    """The events of the search that an account pays for, seen by whoever watches it; `outcome` notes what comes."""
    seen = _seen(events, account, outcome or Outcome())
    return account.spans.search(seen, account) if account.spans else seen


async def _seen(events: AsyncGenerator[Event, None], account: Account, outcome: Outcome) -> AsyncGenerator[Event, None]:
    recorder = account.recorder
    failure: Exception | None = None
    try:
        async with aclosing(events):
            async for event in events:
                if outcome.first_s is None and isinstance(event, (Delta, Final)):
                    outcome.first_s = account.wall_s
                if isinstance(event, Final):
                    outcome.final = event
                    # A vote, too, may have been cut by the deadline, and says so to nobody.
                    if account.deadline.ends_now:
                        account.stop("deadline")
                if recorder:
                    recorder.see(event)
                yield event
        if outcome.final is None:
            failure = RuntimeError("the strategy ended without a final event")
    except Exception as error:
        failure = error
        raise
    finally:
        if recorder:
            recorder.end(failure)
