"""What a family of reward models is: how a solution becomes tokens, and how outputs at its step ends become scores.

Knows nothing of where the model runs: a `Backend` reads layouts, a `FamilyPRM` puts the two together.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prm.aggregate import Aggregation
from prm.base import Choice, OnTokens, PRMError, StepScores, check_scores, check_solutions, refuse
from prm.families.encoder import TokenIds

Config = Mapping[str, Any]
"""A model's `config.json`."""
FAMILY_KEY = "prm_family"
"""The key of `config.json` by which a model says its family itself."""
SEPARATOR_KEY = "prm_separator"
"""The key of `config.json` by which a model says the step separator of its training, where its family has several."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The tokens that a model reads, and where its scores come from."""

    token_ids: tuple[int, ...]
    """Ends with the token of the last of `ends`: what follows it in a family's template changes no score."""
    ends: tuple[int, ...]
    """Indices into `token_ids`, ascending: the output at `ends[k]` gives the k-th score."""


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """A language model's head: P(right) of a softmax over the next-token logits of two labels."""

    right: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Classes:
    """A classification head: the probability of one class in a softmax over all."""

    right: int


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """A head of one value: its sigmoid."""


Head = LabelTokens | Classes | Sigmoid


_AT_ONCE = 100_000
"""Up to this many characters are encoded on the event loop, in some ten milliseconds; more on another thread."""


def layout(opening: TokenIds, steps: Iterable[TokenIds]) -> Layout:
    """Returns the layout of consecutive steps, each of which is scored at its last token."""
    ids, ends = list(opening), list[int]()
    for step in steps:
        ids += step
        ends.append(len(ids) - 1)
    return Layout(tuple(ids), tuple(ends))


def check_separator(family: str, separator: str | None) -> None:
    """Raises PRMError if a separator is set for a family whose format fixes it."""
    if separator is not None:
        raise PRMError(f"the family {family} has a step separator of its own, got {separator!r}")


def named(config: Config, name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a language model's name matches: its config looks like that of any other language model."""
    kinds = config.get("architectures") or ()
    names = (name, str(config.get("_name_or_path") or ""))
    return any(kind.endswith("ForCausalLM") for kind in kinds) and any(pattern.search(text) for text in names)


def labels(config: Config) -> int:
    """Returns how many values a classification head gives; a config without labels means the usual two."""
    return len(config.get("id2label") or (0, 1))


class Family(Protocol):
    """How one family of models was trained to read solutions."""

    @property
    def name(self) -> str:
        """What `--prm` calls it."""
        ...

    @property
    def aggregation(self) -> Aggregation:
        """How its authors make one score of step scores."""
        ...

    @property
    def head(self) -> Head:
        """How the model's output at a step's end becomes a score."""
        ...

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        """What is read to score a solution: the scores of all layouts, in order, are one a step.

        A process reward model has one layout, and the layout of a solution's beginning is a token prefix of it with
        the same ends: a backend that keeps what it computed pays for the new step only. A model of outcomes has one
        layout a step.

        Args:
            question: as the user wrote it: it is encoded as text, whatever control tokens it spells.
            steps: at least one, none of them blank; encoded as text too.
        """
        ...


class Backend(Protocol):
    """Where a model runs."""

    @property
    def max_len(self) -> int:
        """Tokens of the longest layout; available after `start`."""
        ...

    async def start(self) -> None:
        """Loads the model or reaches its server; raises one sentence that says what to do where it cannot."""
        ...

    async def close(self) -> None:
        """Drops what still runs and frees everything."""
        ...

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """The scores at each layout's ends, in [0, 1]; the order is kept.

        No layout is longer than `max_len`. Cancelling the call drops its work that has not begun. `on_tokens`
        receives all tokens that are computed, without those from a cache, also when the call is cancelled or fails.

        Raises:
            PRMError: the model failed.
        """
        ...


class FamilyPRM:
    """A reward model of a family on a backend. Equal layouts of a call are read once.

    Args:
        family: the layout.
        backend: what reads it; started and closed by its owner.
        name: what `tts.prm` calls the model.
    """

    def __init__(self, family: Family, backend: Backend, name: str) -> None:
        self.name = name
        self.aggregation: Aggregation = family.aggregation
        self.selector: Choice = "weighted"
        self.trained = True
        self.family = family
        self.backend = backend

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        check_solutions(solutions)
        layouts = await self._layouts(question, solutions)
        self._check_length(layouts)
        distinct = list(dict.fromkeys(layout for those in layouts for layout in those))
        read = await self.backend.read(distinct, on_tokens=on_tokens) if distinct else []
        if [len(scores) for scores in read] != [len(layout.ends) for layout in distinct]:
            raise PRMError(f"the backend of {self.name!r} did not return one score a step end")
        of = dict(zip(distinct, read, strict=True))
        results = [StepScores(tuple(score for layout in those for score in of[layout])) for those in layouts]
        check_scores(solutions, results)
        return results

    async def _layouts(self, question: str, solutions: Sequence[Sequence[str]]) -> list[tuple[Layout, ...]]:
        def lay_out() -> list[tuple[Layout, ...]]:
            return [self.family.layouts(question, steps) for steps in solutions]

        characters = len(question) + sum(len(step) for steps in solutions for step in steps)
        return lay_out() if characters <= _AT_ONCE else await asyncio.to_thread(lay_out)

    def _check_length(self, layouts: Sequence[Sequence[Layout]]) -> None:
        limit = self.backend.max_len
        longest = [max(len(layout.token_ids) for layout in those) for those in layouts]
        refuse(
            {
                i: f"the question and the steps of solution {i} are {length} tokens for {self.name!r}, "
                f"more than its limit of {limit}"
                for i, length in enumerate(longest)
                if length > limit
            }
        )
