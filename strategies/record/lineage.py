"""Which sample goes on from which: found from token ids and texts, so that no strategy has to tell.

A path is the token ids of a prompt and of all that was sampled after it. What a call's token ids begin with, what a
chat shows, what steps a reward model reads and what a candidate says all end with some sample's path or text. Only
hashes are kept of paths. Of samples that read the same, the one that was meant the least is meant, and of those the
first.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from prm import split_steps
from strategies.answers.think_tags import split
from strategies.core.contracts import Message, Sample, TokenIds, text_of

SHORTEST = 4
"""Characters: what a chat shows of a shorter text may be anything."""


class Lineage:
    """What is known of a search's samples, by their numbers."""

    def __init__(self) -> None:
        self._paths: dict[int, list[int]] = {}
        self._lengths: set[int] = set()
        self._roots: set[TokenIds] = set()
        self._unread: list[tuple[int, int | None, bool, str, str]] = []
        """Samples whose steps are not in `_steps` yet: number, the only parent, whether it goes on from token ids,
        text and stop."""
        self._steps: dict[int, list[int]] = {}
        self._chains: dict[int, int] = {}
        self._texts: dict[str, list[int]] = {}
        self._above: dict[int, tuple[int, ...]] = {}
        self._shown: dict[int, tuple[int, ...]] = {}
        self._continuations: defaultdict[int, int] = defaultdict(int)
        self._scorings: defaultdict[int, int] = defaultdict(int)

    def add(
        self, number: int, parents: tuple[int, ...], prompt: TokenIds, ids: TokenIds, text: str, stop: str, eos: bool
    ) -> None:
        """A sample that has ended.

        Args:
            number: what it is called.
            parents: what it goes on from.
            prompt: the token ids that it was sampled after; none of a chat.
            ids: its own, where the engine tells them.
            text: what it says.
            stop: the stop string at which it ended, if at one.
            eos: whether its last token id ends it.
        """
        self._above[number] = parents
        self._texts.setdefault(text, []).append(number)
        continued = bool(prompt and parents)
        if ids:
            if not continued:
                self._roots.add(prompt)
            # What goes on from an end leaves its token out.
            for path in (prompt + ids, *((prompt + ids[:-1],) if eos else ())):
                self._paths.setdefault(hash(path), []).append(number)
                self._lengths.add(len(path))
        self._unread.append((number, parents[0] if len(parents) == 1 else None, continued, text, stop))

    def _read_steps(self) -> None:
        """Takes in what the samples since the last time say step by step, which only a reward model asks for."""
        for number, parent, continued, text, stop in self._unread:
            self._read(number, parent, continued, text, stop)
        self._unread.clear()

    def _read(self, number: int, parent: int | None, continued: bool, text: str, stop: str) -> None:
        before = 0 if parent is None else self._chains.get(parent, 0)
        whole, bare = text.strip(), text.removesuffix(stop).strip()
        self._chains[number] = _chain(before, [whole] if whole else [])
        # A search takes a sample for a step after others, a reader of a whole solution splits it.
        chains = {_chain(before, [step]) for step in (whole, bare) if step}
        if not continued and (steps := split_steps(bare)):
            chains.add(_chain(0, steps))
        for chain in chains:
            self._steps.setdefault(chain, []).append(number)

    def passed(self, sample: TokenIds, path: TokenIds) -> None:
        """A search begins with a part of a sample that was drawn whole: what goes on from there goes on from it.

        Args:
            sample: its token ids.
            path: the prompt's, and the sample's up to the part's end.
        """
        roots = ((), *self._roots)
        found = next((numbers for root in roots if (numbers := self._paths.get(hash(root + sample)))), None)
        if found:
            self._paths.setdefault(hash(path), []).append(found[0])
            self._lengths.add(len(path))

    def continued(self, ids: TokenIds) -> tuple[int, ...]:
        """The sample whose path is the longest beginning of `ids`."""
        lengths = [len(ids)] if len(ids) in self._lengths else []
        found = self._paths.get(hash(ids)) if lengths else None
        for length in sorted((k for k in self._lengths if k < len(ids)), reverse=True) if not found else ():
            found = self._paths.get(hash(ids[:length]))
            if found:
                break
        return (_least(found, self._continuations),) if found else ()

    def shown(self, prompt: int, news: Sequence[Message], *, known: bool) -> tuple[int, ...]:
        """The samples whose texts a chat shows, without those that others of them were made from.

        Args:
            prompt: the chat's number.
            news: its turns that are not the client's.
            known: whether it was asked before; then it shows what it showed.
        """
        if not known:
            told = "\n".join(map(text_of, news))
            seen = [
                number
                for text, numbers in self._texts.items()
                if len(said := split(text).answer.strip()) >= SHORTEST and said in told
                for number in numbers[:1]
            ]
            above = {ancestor for number in seen for ancestor in self._ancestors(number)}
            self._shown[prompt] = tuple(number for number in seen if number not in above)
        return self._shown[prompt]

    def scored(self, solutions: Sequence[Sequence[str]]) -> list[int | None]:
        """The sample with which each solution ends."""
        self._read_steps()
        found = [self._steps.get(_chain(0, steps)) for steps in solutions]
        return [_least(numbers, self._scorings) if numbers else None for numbers in found]

    def ends(self, candidates: Sequence[Sample]) -> list[int | None]:
        """The sample with which each candidate ends."""
        taken: defaultdict[int, int] = defaultdict(int)
        return [_least(found, taken) if (found := self._ending(c)) else None for c in candidates]

    def end(self, candidate: Sample) -> int | None:
        """The sample with which an answer ends that may be another's yet."""
        found = self._ending(candidate)
        return found[0] if found else None

    def _ending(self, candidate: Sample) -> Sequence[int]:
        ids, text = candidate.token_ids, candidate.text
        found = next((n for root in self._roots if ids and (n := self._paths.get(hash(root + ids)))), None)
        found = found or (self._texts.get(text) if text else None)
        if found is None:
            # Text was put between its samples: the longest last part of it that is a sample.
            last = max((said for said in self._texts if said and text.endswith(said)), key=len, default=None)
            found = [] if last is None else self._texts[last]
        return found

    def _ancestors(self, number: int) -> Iterator[int]:
        stack, seen = [number], {number}
        while stack:
            for parent in self._above.get(stack.pop(), ()):
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
                    yield parent


def _least(numbers: Sequence[int], uses: defaultdict[int, int]) -> int:
    """The number that was used the least; that is a use."""
    number = min(numbers, key=lambda number: uses[number])
    uses[number] += 1
    return number


def _chain(before: int, steps: Sequence[str]) -> int:
    for step in steps:
        before = hash((before, step))
    return before
