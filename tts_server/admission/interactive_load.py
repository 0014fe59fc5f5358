"""How many requests wait for an answer now, for whoever works only where others leave room."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Load:
    """The interactive requests under way."""

    def __init__(self) -> None:
        self.interactive = 0
        self.on_fewer: Callable[[], None] = lambda: None
        """Called when one has ended."""

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts a request while it is under way."""
        self.interactive += 1
        try:
            yield
        finally:
            self.interactive -= 1
            self.on_fewer()
