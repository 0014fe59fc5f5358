"""When a search must stop widening so that whole answers are there at its deadline."""

import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from strategies.core.account import Account

T = TypeVar("T")

MARGIN = 1.5
"""Seconds that are kept for finishing, for each that it is expected to take."""
LONGER = 0.25
"""The part of its length by which an answer is expected to grow that is longer than usual already."""


@dataclass(slots=True)
class Finishing:
    """The end of one search that has a deadline: its best branches are brought to their ends instead of widened."""

    account: Account
    begun: bool = False
    _ended: list[int] = field(default_factory=list)
    _round_s: float = 0.0

    def ended(self, tokens: int) -> None:
        """A solution of so many tokens has ended."""
        self._ended.append(tokens)
        self.account.latency.engine.answer.add(tokens)

    @contextmanager
    def round(self) -> Iterator[None]:
        """One round of the search: whatever happens between two times that it asks whether to finish."""
        began = time.monotonic()
        yield
        self._round_s = time.monotonic() - began

    def due(self, lengths: Sequence[int]) -> bool:
        """Whether another round would leave too little time to finish branches of these lengths; notes that it does.

        Without a deadline, and as long as nothing is known of the engine, it never would.
        """
        spare = self.spare_s(lengths)
        if not self.begun and spare is not None and spare <= self._round_s:
            self.begin()
        return self.begun

    def begin(self) -> None:
        """From here on branches are finished only."""
        self.begun = True
        self.account.stop("deadline")

    def spare_s(self, lengths: Sequence[int]) -> float | None:
        """Seconds until branches of these lengths must be finished, 0 if that is past; None is no limit."""
        left, margin = self.account.seconds_left, self._margin_s(lengths)
        return None if left is None or margin is None else max(0.0, left - margin)

    async def in_time(self, work: Awaitable[T], lengths: Sequence[int]) -> T:
        """Waits for `work` until branches of these lengths must be finished.

        Raises:
            Late: it has taken too long, and is cancelled.
        """
        margin = self._margin_s(lengths)
        return await (work if margin is None else self.account.deadline.within(work, -margin))

    def _margin_s(self, lengths: Sequence[int]) -> float | None:
        """Seconds before the deadline at which branches of these lengths must be finished, as far as that is known."""
        takes = self.account.latency.finish_s(max(map(self._rest, lengths))) if lengths else None
        return None if takes is None else MARGIN * takes

    def _rest(self, length: int) -> float:
        """Tokens by which an answer of this length is expected to grow still."""
        usual = sum(self._ended) / len(self._ended) if self._ended else self.account.latency.answer_tokens
        if usual is None:
            # Without an ended answer to go by, an answer is taken to be half done.
            return length
        return max(usual - length, LONGER * length)
