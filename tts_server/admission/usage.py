"""What the requests of each owner have cost since the start of the server."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from strategies.core.account import Account, Usage

MAX_NAMED = 200
"""Owners that metrics tell apart; those that come later are one."""
OTHERS = "(others)"
"""What metrics call these; no owner can have this name."""


@dataclass(slots=True)
class OwnerUsage:
    """What one owner's requests have cost, of those that may compute something."""

    statuses: Counter[str] = field(default_factory=Counter)
    """How many requests ended with each status."""
    cost: Usage = field(default_factory=Usage)

    def add(self, status: str, accounts: list[Account]) -> None:
        self.statuses[status] += 1
        for account in accounts:
            for each in fields(Usage):
                setattr(self.cost, each.name, getattr(self.cost, each.name) + getattr(account.usage, each.name))


class Ledger:
    """Counts each request that may compute something when it has ended, however it ended."""

    def __init__(self) -> None:
        self.since = int(time.time())
        """Unix seconds."""
        self._by_owner: dict[str, OwnerUsage] = {}

    def count(self, owner: str, status: int, accounts: list[Account]) -> None:
        """Counts a request of the owner's that has ended with this status."""
        self._by_owner.setdefault(owner, OwnerUsage()).add(str(status), accounts)

    def of(self, owner: str) -> OwnerUsage:
        return self._by_owner.get(owner) or OwnerUsage()

    def named(self) -> Iterator[tuple[str, OwnerUsage]]:
        """Each owner by name, in the order in which they came; without API keys there are none."""
        for place, (owner, usage) in enumerate(self._by_owner.items()):
            if owner:
                yield owner if place < MAX_NAMED else OTHERS, usage
