"""A family of reward models whose tokens are bytes, and a backend that draws each score from the tokens before it."""

from collections.abc import Callable, Sequence
from zlib import crc32

from prm import Aggregation, OnTokens
from prm.families.contract import Classes, Head, Layout

TAG = 256


def drawn(prefix: Sequence[int]) -> float:
    """The score of a beginning."""
    return crc32(repr(tuple(prefix)).encode()) / 2**32


class ByteFamily:
    """Each step's bytes and a tag."""

    name = "bytes"
    aggregation: Aggregation = "last"

    def __init__(self, head: Head = Classes(right=1)) -> None:  # noqa: B008  (frozen)
        self.head = head

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        ids, ends = [*question.encode()], []
        for step in steps:
            ids += [*step.encode(), TAG]
            ends.append(len(ids) - 1)
        return (Layout(tuple(ids), tuple(ends)),)


class PrefixBackend:
    """Remembers what it was asked."""

    max_len = 10_000

    def __init__(self, score: Callable[[Sequence[int]], float] = drawn) -> None:
        self.asked: list[Layout] = []
        self.life: list[str] = []
        self._score = score

    async def start(self) -> None:
        self.life.append("start")

    async def close(self) -> None:
        self.life.append("close")

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        self.asked += layouts
        if on_tokens:
            on_tokens(sum(len(layout.token_ids) for layout in layouts))
        return [tuple(self._score(layout.token_ids[: end + 1]) for end in layout.ends) for layout in layouts]
