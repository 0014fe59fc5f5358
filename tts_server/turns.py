"""Whose turn it is of several that share something: who has had least of it."""

from operator import attrgetter
from typing import Generic, TypeVar


class Share:
    """Somebody that takes turns."""

    __slots__ = ("served",)

    def __init__(self) -> None:
        self.served = 0.0
        """Tokens, from where it began."""


S = TypeVar("S", bound=Share)
_served = attrgetter("served")


class Turns(Generic[S]):
    """Shares that take turns, and the virtual time at which a new one begins."""

    __slots__ = ("_now", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[S, None] = {}
        self._now = 0.0

    def begin(self, share: S) -> None:
        """What it did not use while it wanted nothing is not saved up."""
        share.served = max(share.served, self._now)

    def next(self) -> S:
        """Who has had least; of several, who waits longest."""
        return min(self.waiting, key=_served)

    def charge(self, share: S, cost: float) -> None:
        """For a turn. Time goes on as fast as each of those that wait gets its part, so no stream of new ones keeps
        an old one waiting for ever.
        """
        self._now = max(self._now, share.served) + cost / max(1, len(self.waiting))
        share.served += cost

    def correct(self, share: S, cost: float) -> None:
        """What a turn has cost more, or less, than it was charged for."""
        share.served += cost
        if not self.waiting:
            # What is used while nobody else wants it is not held against anybody.
            self._now = max(self._now, share.served)
