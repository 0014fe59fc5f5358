"""Whose turn it is of several that share something: who has had least of it, and holds least of it now."""

from typing import Generic, TypeVar


class Share:
    """Somebody that takes turns."""

    __slots__ = ("live", "served")

    def __init__(self) -> None:
        self.served = 0.0
        """What its turns have cost, from where it began."""
        self.live = 0
        """Turns whose cost is not known yet."""


S = TypeVar("S", bound=Share)


class Turns(Generic[S]):
    """Shares that take turns, and the virtual time at which a new one begins."""

    __slots__ = ("_now", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[S, None] = {}
        self._now = 0.0

    def begin(self, share: S) -> None:
        """What it did not use while it wanted nothing is not saved up."""
        share.served = max(share.served, self._now)

    def next(self, guess: float) -> S:
        """Who has had least, if a turn that is not over costs `guess`; of several, who waits longest."""
        return min(self.waiting, key=lambda share: share.served + share.live * guess)

    def settle(self, share: S, turns: int, cost: float) -> None:
        """So many turns are over, and this is what they have cost together.

        Time goes on as fast as each of those that wait gets its part, so no stream of new ones keeps an old one
        waiting for ever.
        """
        share.live -= turns
        share.served += cost
        self._now += cost / max(1, len(self.waiting))
