"""Process labels without humans: whether a solution can still be brought to the gold answer, told by rolling out.

Knows no server: what draws completions is an argument.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from bench.grading.grade import grade
from bench.prm_training.labels import LabelledSolution, Recipe, solution_id
from bench.stored.records import SampleRecord, Usage
from bench.tasks import Problem
from prm import SEPARATOR, split_steps

Chat = Sequence[Mapping[str, Any]]
"""Turns as OpenAI writes them; one that ends in an assistant's turn is to be gone on with."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote."""

    text: str
    finish_reason: str
    """`stop` where it ended by itself, `length` where the token limit cut it."""

    @property
    def finished(self) -> bool:
        return self.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class Drawn:
    """The completions of one chat and what they cost."""

    completions: tuple[Completion, ...]
    usage: Usage


class Draw(Protocol):
    """The policy."""

    async def __call__(self, chat: Chat, n: int, seed: int) -> Drawn:
        """Exactly n completions of a chat, at the recipe's temperature and token limit."""
        ...


async def labelled(problem: Problem, number: int, chat: Chat, recipe: Recipe, draw: Draw) -> LabelledSolution:
    """Samples one solution of a problem and labels its steps.

    Args:
        problem: what is asked.
        number: which of the problem's solutions; its seeds are drawn from it.
        chat: asks the question.
        recipe: the method, how many rollouts, the seed.
        draw: the policy.
    """
    return await _Solution(problem, number, chat, recipe, draw).labelled()


@dataclass(frozen=True, slots=True)
class _Labels:
    """Of every step but the last."""

    labels: list[int]
    values: list[float | None]
    rollouts: list[int]


class _Solution:
    """One solution on its way to its labels."""

    def __init__(self, problem: Problem, number: int, chat: Chat, recipe: Recipe, draw: Draw) -> None:
        self._problem = problem
        self._id = solution_id(problem.id, number)
        self._number = number
        self._chat = chat
        self._recipe = recipe
        self._draw = draw
        self._steps: tuple[str, ...] = ()
        self._spent: list[Usage] = []

    async def labelled(self) -> LabelledSolution:
        sample = (await self._drawn(self._chat, 1, "solution"))[0]
        self._steps = split_steps(sample.text)
        solved = await grade(sample.text, self._problem.gold, truncated=not sample.finished)
        inner = await (self._every() if self._recipe.method == "shepherd" else self._halves(solved.correct))
        # The last step's own rollout is its answer; a step that the token limit cut is none.
        ends = [int(solved.correct) if sample.finished else None for _ in self._steps[-1:]]
        return LabelledSolution(
            id=self._id,
            problem=self._problem.id,
            number=self._number,
            question=self._problem.question,
            gold=self._problem.gold,
            samples=(
                SampleRecord(
                    text=sample.text,
                    answer=solved.answer,
                    finish_reason=sample.finish_reason,
                    completion_tokens=self._spent[0].completion_tokens,
                ),
            ),
            answer=solved.answer,
            correct=solved.correct,
            steps=self._steps,
            labels=(*inner.labels, *ends),
            values=(*inner.values, *ends),
            rollouts=(*inner.rollouts, *(0 for _ in ends)),
            usage=total(self._spent),
        )

    async def _every(self) -> _Labels:
        """Rolls out from behind every step (2312.08935): right if any rollout reaches the gold answer."""
        values = [await self._value(k) for k in range(len(self._steps) - 1)]
        return _Labels([int(value > 0) for value in values], [*values], [self._recipe.rollouts] * len(values))

    async def _halves(self, correct: bool) -> _Labels:
        """Searches the first step from behind which no rollout arrives in halves (2406.06592).

        Steps before it are right and those from it on wrong. A solution whose answer is right is searched no further:
        all its steps are right.
        """
        inner = max(0, len(self._steps) - 1)
        values: list[float | None] = [None] * inner
        first, beyond = (inner, inner) if correct else (0, inner)
        while first < beyond:
            middle = (first + beyond) // 2
            value = values[middle] = await self._value(middle)
            first, beyond = (middle + 1, beyond) if value else (first, middle)
        labels = [int(k < first) for k in range(inner)]
        return _Labels(labels, values, [0 if value is None else self._recipe.rollouts for value in values])

    async def _value(self, step: int) -> float:
        """The share of rollouts from behind the step that reach the gold answer."""
        prefix = SEPARATOR.join(self._steps[: step + 1]) + SEPARATOR
        chat = [*self._chat, {"role": "assistant", "content": prefix}]
        rollouts = await self._drawn(chat, self._recipe.rollouts, f"step {step}")
        grades = await asyncio.gather(
            *(grade(prefix + r.text, self._problem.gold, truncated=not r.finished) for r in rollouts)
        )
        return sum(grade.correct for grade in grades) / len(grades)

    async def _drawn(self, chat: Chat, n: int, what: str) -> tuple[Completion, ...]:
        drawn = await self._draw(chat, n, seed_of(self._recipe.seed, self._id, what))
        self._spent.append(drawn.usage)
        return drawn.completions


def seed_of(*parts: object) -> int:
    """A seed of 31 bits that depends on all parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=4).digest()) >> 1


def total(usages: Sequence[Usage]) -> Usage:
    """What several requests cost together; what one of them did not tell is not told."""

    def add(name: str) -> int | None:
        values = [getattr(usage, name) for usage in usages]
        return None if None in values else sum(values)

    names = ("prompt_tokens", "engine_prompt_tokens", "cached_prompt_tokens", "completion_tokens", "samples")
    return Usage(**{name: add(name) for name in names})
