"""Stop strings in a text that grows part by part: an engine sees only those that lie within one part."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from strategies.answers.think_tags import overlap
from strategies.core.contracts import Chunk, Sample


class Stop(NamedTuple):
    """A stop string in a text."""

    end: int
    """Characters up to its end."""
    start: int
    """Characters up to its beginning: what is said."""
    text: str


def first_stop(text: str, stops: Sequence[str], begin: int = 0) -> Stop | None:
    """The stop string that is complete first, and of several the longest, among those that end behind `begin`."""
    found = [
        Stop(at + len(stop), at, stop) for stop in stops if (at := text.find(stop, max(0, begin - len(stop) + 1))) >= 0
    ]
    return min(found, default=None)


def reach(stops: Sequence[str]) -> int:
    """How many characters before a part a stop string may begin that ends in it."""
    return max(map(len, stops), default=1) - 1


def tail(samples: Sequence[Sample], length: int) -> str:
    """The last characters of what the samples say one after the other, as many as there are."""
    texts: list[str] = []
    for chunk in (chunk for sample in reversed(samples) for chunk in reversed(sample.chunks)):
        if length <= 0:
            break
        texts.append(chunk.text[-length:])
        length -= len(texts[-1])
    return "".join(reversed(texts))


def stopped_at(sample: Sample, stop: str) -> Sample:
    """The sample, which ends at a stop string, whatever else ended it."""
    end = replace(sample.chunks[-1], finish_reason="stop", stop=stop, error=None)
    return Sample([*sample.chunks[:-1], end], sample.opening)


def length_of(sample: Sample, tokens: int) -> int:
    """Characters of the sample's first tokens; a chunk that holds one of them and others counts whole."""
    length = 0
    for chunk in sample.chunks:
        if tokens <= 0:
            break
        length += len(chunk.text)
        tokens -= chunk.completion_tokens
    return length


def without_end(sample: Sample, length: int) -> Sample:
    """The sample without its last characters; its tokens stay counted."""
    chunks: list[Chunk] = []
    for chunk in reversed(sample.chunks):
        cut = min(length, len(chunk.text))
        chunks.append(replace(chunk, text=chunk.text[: len(chunk.text) - cut]) if cut else chunk)
        length -= cut
    return Sample(chunks[::-1], sample.opening)


@dataclass(slots=True)
class Border:
    """Watches the parts that follow one text for a stop string that begins in it, so that none need run on."""

    before: str
    """The text's end, as far as a stop string reaches."""
    stops: Sequence[str]
    ended: set[int] = field(default_factory=set)
    """The parts, by their index, in which one has ended."""
    _texts: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stops = [stop for stop in self.stops if overlap(self.before, stop)]

    def ends(self, chunk: Chunk) -> bool:
        """Whether a stop string ends in what the chunk adds."""
        text = self._texts.get(chunk.index, "")
        if not self.stops or chunk.index in self.ended or len(text) > reach(self.stops):
            return False
        self._texts[chunk.index] = text = text + chunk.text
        if first_stop(self.before + text, self.stops, len(self.before)):
            self.ended.add(chunk.index)
        return chunk.index in self.ended
