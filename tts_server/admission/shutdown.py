"""The end of a server: what it still answers, and until when."""

import asyncio
import time

from strategies.core.account import Account

EARLY_S = 2.0
"""So long before the end of the grace a search has to answer, or the quarter of it if that is less."""


class Drain:
    """Whether the server goes down, and the searches that are to end before it does.

    A search that has generated something is told at once until when it may go on, as if that were its deadline, and
    answers then with the best that it has. One that has not yet is left to the end of the grace: to be told to come
    back serves its client better than an answer of nothing.
    """

    def __init__(self) -> None:
        self.searches: dict[int, Account] = {}
        """Those under way, by identity."""
        self._until: float | None = None

    @property
    def begun(self) -> bool:
        return self._until is not None

    @property
    def is_over(self) -> bool:
        """Whether the grace has passed."""
        return self._until is not None and time.monotonic() >= self._until

    def begin(self, grace_s: float) -> None:
        """From now on, what is under way has so many seconds to end."""
        self._until = time.monotonic() + grace_s
        early_s = min(EARLY_S, grace_s / 4)
        self._hurry(grace_s - early_s)
        asyncio.get_running_loop().call_later(grace_s - early_s, self._hurry, 0.0)

    def _hurry(self, within_s: float) -> None:
        for account in self.searches.values():
            if account.usage.completion_tokens:
                account.deadline.bring_forward(within_s)
