"""Grading: whether a solution's answer is the gold answer. The server votes with the same code (`strategies.answers`).

math-verify and sympy run in processes of their own, each pair under a limit of CPU time at whose end the process is
killed, so no answer can hang a run. What cannot be compared in time is wrong.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from strategies.answers import equivalent, extract

__all__ = ["Grade", "answers_correct", "grade"]

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Grade:
    """What a text answers, and whether that is right."""

    answer: str | None
    """None if the text gives no answer, which is wrong."""
    correct: bool


async def grade(text: str, gold: str, *, truncated: bool = False) -> Grade:
    """The grade of a solution's text.

    Args:
        text: what the model wrote.
        gold: the gold answer.
        truncated: whether the text was cut short (`finish_reason` is `length` or `content_filter`), so that an answer
            has to be complete to count.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    answer = extract(text, truncated=truncated)
    return Grade(answer, answer is not None and await equivalent(gold, answer))


async def answers_correct(pairs: Sequence[tuple[str, str | None]]) -> list[bool]:
    """Whether each answer is right, of pairs of a gold answer and an answer; None is wrong. Each pair is asked once.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def correct(gold: str, answer: str) -> bool:
        async with gate:
            return await equivalent(gold, answer)

    different = list(dict.fromkeys((gold, answer) for gold, answer in pairs if answer is not None))
    verdicts = await asyncio.gather(*(correct(*pair) for pair in different))
    right = {pair for pair, verdict in zip(different, verdicts, strict=True) if verdict}
    return [pair in right for pair in pairs]
