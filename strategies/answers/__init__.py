r"""Answers: what a solution says its answer is, and which answers are the same. It votes in the server and grades.

Two answers are the same if their canonical keys are. Grading asks math-verify about the pair as well, which alone would
be no ground for a vote: it is neither symmetric nor transitive.
"""

import asyncio
import re
from collections.abc import Sequence
from fractions import Fraction

from strategies.answers import symbolic
from strategies.answers.extraction import extract
from strategies.answers.normal_forms import MAX_LENGTH, Form, Value, clean, parse, render, symbolic_values, to_latex
from strategies.answers.voting import Outcome, vote

__all__ = ["Exact", "Outcome", "canonical", "equivalent", "extract", "vote"]

_RATIONAL = re.compile(r"-?\d+(?:/\d+)?")
_TOLERANCE = Fraction(1, 1_000_000)
"""Relative error up to which a rounded decimal is taken for the number, as math-verify does."""


class Exact(str):
    """An answer in a form of its own, as JSON is: the same as another only if it is letter by letter."""

    __slots__ = ()


VOTE_S = 2.5
"""Seconds that one vote may spend on algebra: expressions that hang must not hold a request up."""


async def canonical(answers: Sequence[str], within_s: float | None = None) -> list[str]:
    """One key an answer, order kept; equal keys are equal answers, by the policy of `strategies.answers.normal_forms`.

    An expression that has not been read after `within_s` seconds, or `VOTE_S` if that is less, is the same as its very
    text only.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    within_s = VOTE_S if within_s is None else min(within_s, VOTE_S)
    known = iter(await _keys([parse(answer) for answer in answers if not isinstance(answer, Exact)], within_s))
    return [answer if isinstance(answer, Exact) else next(known) for answer in answers]


async def equivalent(gold: str, answer: str) -> bool:
    """Whether `answer` is right: by key, as a number rounded to six digits or written as a percentage, or as
    math-verify sees it.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    forms = [parse(gold), parse(answer)]
    keys = await _keys(forms)
    if keys[0] == keys[1]:
        return True
    if all(_RATIONAL.fullmatch(key) for key in keys):
        wanted, given = map(Fraction, keys)
        scales = [100 if "%" in text else 1 for text in (gold, answer)]
        return _close(wanted, given) or (scales[0] != scales[1] and _close(wanted / scales[0], given / scales[1]))
    if max(len(gold), len(answer)) > MAX_LENGTH or all(map(_settled, forms)):
        return False
    return await symbolic.equal(to_latex(clean(gold)), to_latex(clean(answer)))


async def _keys(forms: Sequence[Form], within_s: float | None = None) -> list[str]:
    latex = sorted({text for form in forms for text in symbolic_values(form)})
    reading = {text: asyncio.create_task(symbolic.key(text)) for text in latex}
    try:
        if reading:
            await asyncio.wait(reading.values(), timeout=within_s)
        read = {text: task.result() if task.done() else None for text, task in reading.items()}
    finally:
        for task in reading.values():
            task.cancel()
        await asyncio.gather(*reading.values(), return_exceptions=True)
    return [render(form, read) for form in forms]


def _close(gold: Fraction, answer: Fraction) -> bool:
    if gold.denominator == answer.denominator == 1:
        return gold == answer
    return abs(gold - answer) <= _TOLERANCE * abs(gold)


def _settled(form: Form) -> bool:
    """Whether it is a mere number or word, about which math-verify knows nothing more than its key."""
    return isinstance(form, Value) and not form.symbolic
