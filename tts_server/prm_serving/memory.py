"""What a reward model has read once, it is not asked again."""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from prm import OnTokens
from prm.families.contract import Backend, Layout

CAPACITY = 2**17
"""Scores that are kept, a few tens of megabytes of them: far more than the searches under way come back to."""


class Remembered:
    """A backend whose scores are kept by the tokens before them.

    A search scores the same beginning once a round. Of each layout the backend is asked for the ends that are new,
    up to the last of them, so it computes the steps that are new and what its own prefix cache does not hold.

    Args:
        backend: what reads; started and closed with this.
        capacity: scores that are kept, those asked for last.
    """

    def __init__(self, backend: Backend, capacity: int = CAPACITY) -> None:
        self.backend = backend
        self._capacity = capacity
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    @property
    def max_len(self) -> int:
        return self.backend.max_len

    async def start(self) -> None:
        await self.backend.start()

    async def close(self) -> None:
        await self.backend.close()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """As the backend does, see `prm.families.contract.Backend`."""
        keys = [tuple(_keys(layout)) for layout in layouts]
        found = {key: self._scores[key] for ends in keys for key in ends if key in self._scores}
        asked, of = _new(layouts, keys, set(found))
        read = await self.backend.read(asked, on_tokens=on_tokens) if asked else []
        for ends, scores in zip(of, read, strict=True):
            found |= zip(ends, scores, strict=True)
        self._keep(found)
        return [tuple(found[key] for key in ends) for ends in keys]

    def _keep(self, found: dict[bytes, float]) -> None:
        for key, score in found.items():
            self._scores[key] = score
            self._scores.move_to_end(key)
        while len(self._scores) > self._capacity:
            self._scores.popitem(last=False)


def _keys(layout: Layout) -> Iterator[bytes]:
    """A digest of the tokens up to each end."""
    state, begin = blake2b(digest_size=16), 0
    for end in layout.ends:
        state.update(array("q", layout.token_ids[begin : end + 1]).tobytes())
        begin = end + 1
        yield state.digest()


def _new(
    layouts: Sequence[Layout], keys: Sequence[tuple[bytes, ...]], known: set[bytes]
) -> tuple[list[Layout], list[list[bytes]]]:
    """What is left to be read, each end once, and the keys of its ends."""
    asked, of = list[Layout](), list[list[bytes]]()
    for layout, those in zip(layouts, keys, strict=True):
        new = [(end, key) for end, key in zip(layout.ends, those, strict=True) if key not in known]
        if new:
            asked.append(Layout(layout.token_ids[: new[-1][0] + 1], tuple(end for end, _ in new)))
            of.append([key for _, key in new])
            known.update(of[-1])
    return asked, of
