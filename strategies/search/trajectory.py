"""Trajectories: prompts with steps behind them, and what step searches do with several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from prm import Aggregation, aggregate
from strategies.answers.voting import SCORE_DIGITS
from strategies.core.contracts import Chunk, Sample, TokenIds
from strategies.core.parents import Steps
from strategies.search.stop_strings import tail, without_end


@dataclass(frozen=True)
class Trajectory:
    """A prompt and the steps so far, as token ids. Its samples have ended, so what they come to is computed once."""

    prompt: TokenIds
    samples: tuple[Sample, ...] = ()
    """One engine sample a step; the last one's finish reason is the trajectory's."""
    scores: tuple[float, ...] = ()
    """One for each of `steps`, once scored."""
    ended: bool = False
    """Whether nothing can follow: the model ended it, or its own token limit or the context did."""
    unscorable: str | None = None
    """Why the reward model cannot score it, nor anything that goes on from it, where that is so."""
    dropped: int = 0
    """Characters at the samples' end that are no part of the solution: a stop string and what follows it."""

    def followed_by(self, sample: Sample, *, ended: bool = False, dropped: int = 0) -> "Trajectory":
        """The trajectory that goes on from this one by another step, not scored."""
        child = replace(self, samples=(*self.samples, sample), ended=ended, dropped=dropped)
        # The steps before are the same, so nothing of them is counted again.
        child.__dict__["token_ids"] = self.token_ids + sample.token_ids
        child.__dict__["completion_tokens"] = self.completion_tokens + sample.completion_tokens
        return child

    @cached_property
    def token_ids(self) -> TokenIds:
        ids = list(self.prompt)
        for sample in self.samples:
            ids += sample.token_ids
        return tuple(ids)

    @cached_property
    def solution(self) -> tuple[Sample, ...]:
        """The samples without the dropped characters at their end."""
        if not self.dropped:
            return self.samples
        kept, left = list(self.samples), self.dropped
        for i in reversed(range(len(kept))):
            if not left:
                break
            cut = min(left, len(kept[i].text))
            kept[i] = without_end(kept[i], cut)
            left -= cut
        return tuple(kept)

    @cached_property
    def steps(self) -> Steps:
        """The steps' texts, stripped; blank ones are no steps."""
        return Steps([text for sample in self.solution if (text := sample.text.strip())], self.number)

    @property
    def number(self) -> int | None:
        """That of the sample with which it ends."""
        return self.samples[-1].number if self.samples else None

    @cached_property
    def text(self) -> str:
        return "".join([sample.text for sample in self.solution])

    @cached_property
    def completion_tokens(self) -> int:
        return sum([sample.completion_tokens for sample in self.samples])

    @cached_property
    def sample(self) -> Sample:
        """The whole solution as one sample."""
        return Sample([chunk for sample in self.solution for chunk in sample.chunks])

    def tail(self, length: int) -> str:
        """The last characters of what was sampled, as many as there are."""
        return tail(self.samples, length)

    def score(self, how: Aggregation) -> float:
        """The aggregated step scores; 0 without any: as for a solution of nothing, and last."""
        return aggregate(self.scores, how) if self.scores else 0.0


def failed(trajectory: Trajectory, error: Exception) -> Trajectory:
    """The trajectory with the error at its end."""
    end = Sample([Chunk(0, finish_reason="error", error=error)])
    return replace(trajectory, samples=(*trajectory.samples, end), ended=False)


def distinct(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """All that ended, and the first of those that can grow and whose last step reads the same.

    White space and case aside. Equal ends are as many votes: an answer that is always worded alike must not lose its
    votes to one that is worded in many ways.
    """
    seen: dict[object, Trajectory] = {}
    for place, trajectory in enumerate(trajectories):
        key = place if trajectory.ended else " ".join(trajectory.solution[-1].text.lower().split())
        seen.setdefault(key, trajectory)
    return list(seen.values())


T = TypeVar("T")


def ranked(families: Sequence[Sequence[T]], score: Callable[[T], float]) -> list[T]:
    """The children of all families, best first; among equals the best of each family stand before the second ones.

    Scores that say nothing then keep a search as wide as it was, where the order of the parents would give all places
    to the first one's children.
    """
    placed = [
        (-round(score(child), SCORE_DIGITS), place, child)
        for family in families
        for place, child in enumerate(sorted(family, key=score, reverse=True))
    ]
    return [child for _, _, child in sorted(placed, key=lambda entry: entry[:2])]


def to_ends(best: Sequence[Trajectory], n: int) -> list[tuple[Trajectory, int]]:
    """How the best branches are finished: one of each, but n where nothing has grown from the root."""
    return [(branch, 1 if branch.samples else n) for branch in best]


def spread(parents: Sequence[Trajectory], total: int) -> list[tuple[Trajectory, int]]:
    """`total` children over the parents, as evenly as can be, the first ones favoured."""
    share, rest = divmod(total, len(parents)) if parents else (0, 0)
    return [(parent, n) for i, parent in enumerate(parents) if (n := share + (i < rest))]
