"""What one decoding step of the fake engine grows, where it has room for so many samples only."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Batch(Generic[T]):
    """The samples that grow: the first that came, as many as there are slots, as in vLLM.

    Args:
        slots: None is room for all.
    """

    def __init__(self, slots: int | None) -> None:
        self.slots = slots
        self.growing: set[T] = set()
        self._waiting: dict[T, None] = {}

    def enter(self, sample: T) -> None:
        self._waiting[sample] = None
        self._fill()

    def leave(self, sample: T) -> None:
        """It has ended, or is not wanted any more."""
        self._waiting.pop(sample, None)
        self.growing.discard(sample)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and (self.slots is None or len(self.growing) < self.slots):
            sample = next(iter(self._waiting))
            del self._waiting[sample]
            self.growing.add(sample)
