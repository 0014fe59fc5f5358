"""Who sees what a search does."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from prm import StepScores
from strategies.core.contracts import Chunk, Event, Prompt, Sampling


class ScoringNote(Protocol):
    """Takes what one call of the reward model comes to."""

    tokens: int
    results: Sequence[StepScores] | None


class Observer(Protocol):
    """Sees every call, sample, scoring and event of a search, and changes nothing."""

    def call(
        self, prompt: Prompt, sampling: Sampling, numbers: range
    ) -> AbstractContextManager[Callable[[Chunk], None], None]:
        """A call of the engine that lasts while this is entered; what it gives takes each chunk.

        Args:
            prompt: what the call continues; it names its parents.
            sampling: how its samples are drawn.
            numbers: those of its samples in the search.
        """
        ...

    def scoring(self, solutions: Sequence[Sequence[str]]) -> AbstractContextManager[ScoringNote, None]:
        """A call of the reward model that lasts while this is entered; a solution of `Steps` names its sample."""
        ...

    def see(self, event: Event) -> None:
        """An event of the search."""
        ...

    def end(self, failure: Exception | None) -> None:
        """The search is over, by itself, by a failure, or because nobody wanted more."""
        ...
