"""An answer at the deadline from any strategy, also from one that waits for something that no account meters."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Candidate, EngineGone, Event, Final, Incumbent

GRACE_S = 0.05
"""Seconds behind the deadline in which a strategy can end by itself, with all that it has."""


async def anytime(events: AsyncGenerator[Event, None], account: Account) -> AsyncGenerator[Event, None]:
    """The events of a search, ended by its incumbent where it is late or lets the end of its budget through.

    So it ends, too, where it has an incumbent and lets through that the engine is gone.
    """
    best: Candidate | None = None
    async with aclosing(events):
        try:
            while event := await _next(events, account):
                if isinstance(event, Incumbent):
                    best = event.candidate
                yield event
            return
        except BudgetSpent:
            pass
        except EngineGone:
            if best is None:
                raise
            account.stop("engine")
    yield Final((best or Candidate.empty(),), (0,))


async def _next(events: AsyncIterator[Event], account: Account) -> Event | None:
    """The next event; None at the end.

    Raises:
        BudgetSpent: it is not there when the deadline and its grace are past, or when the account is cut.
    """
    account.waiter = waiter = asyncio.current_task()
    try:
        return await _in_time(events, account)
    except asyncio.CancelledError:
        if not account.is_cut or waiter is None or waiter.uncancel():
            raise
        raise account.stop("deadline") from None
    finally:
        account.waiter = None


async def _in_time(events: AsyncIterator[Event], account: Account) -> Event | None:
    left = account.seconds_left
    if left is None:
        return await anext(events, None)
    try:
        async with asyncio.timeout(left + GRACE_S) as limit:
            return await anext(events, None)
    except TimeoutError:
        if not limit.expired():
            raise
        raise account.stop("deadline") from None
