r"""Answers: what a solution says its answer is, and which answers are the same. It votes in the server and grades.

Two answers are the same if their canonical keys are. Grading asks math-verify about what has no key, which would be no
ground for a vote: it is neither symmetric nor transitive.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction

from strategies.answers import symbolic
from strategies.answers.extraction import extract
from strategies.answers.normal_forms import (
    MAX_LENGTH,
    Form,
    Group,
    clean,
    parse,
    render,
    symbolic_values,
    to_latex,
)
from strategies.answers.notation import without_comparison
from strategies.answers.voting import Outcome, vote

__all__ = ["Exact", "Outcome", "canonical", "equivalent", "extract", "vote"]

_RATIONAL = re.compile(r"-?\d+(?:/\d+)?")
_TOLERANCE = Fraction(1, 1_000_000)
"""Relative error up to which a rounded decimal is taken for the number, as math-verify does."""


class Exact(str):
    """An answer in a form of its own, as JSON is: the same as another only if it is letter by letter."""

    __slots__ = ()


VOTE_S = 5.0
"""Seconds that one vote may spend on algebra: expressions that hang must not hold a request up.

The start of the process that reads them does not count."""


async def canonical(answers: Sequence[str], within_s: float | None = None) -> list[str]:
    """One key an answer, order kept; equal keys are equal answers, by the policy of `strategies.answers.normal_forms`.

    An expression that has not been read after `within_s` seconds, or `VOTE_S` if that is less, is the same as its very
    text only.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    read = iter(await _keys([parse(answer) for answer in answers if not isinstance(answer, Exact)], VOTE_S, within_s))
    return [answer if isinstance(answer, Exact) else next(read) for answer in answers]


async def equivalent(gold: str, answer: str) -> bool:
    """Whether `answer` is right: by key, as a number rounded to six digits or written as a percentage, or, where one of
    the two cannot be read or they are of different kinds, as math-verify sees it.

    Raises:
        RuntimeError: the process that reads expressions does not start.
    """
    forms = [parse(gold), parse(answer)]
    read = await _read(forms)
    keys = [render(form, read) for form in forms]
    if keys[0] == keys[1]:
        return True
    if all(_RATIONAL.fullmatch(key) for key in keys):
        wanted, given = map(Fraction, keys)
        scales = [100 if "%" in text else 1 for text in (gold, answer)]
        return _close(wanted, given) or (scales[0] != scales[1] and _close(wanted / scales[0], given / scales[1]))
    if _RATIONAL.fullmatch(keys[0]) and (bare := without_comparison(answer)) != answer:
        return await equivalent(gold, bare)
    if max(len(gold), len(answer)) > MAX_LENGTH or not _undecided(forms[0], forms[1], read):
        return any("." in text for text in (gold, answer)) and _rounded(forms[0], forms[1], read)
    return await symbolic.equal(to_latex(clean(gold)), to_latex(clean(answer)))


async def _keys(forms: Sequence[Form], limit_s: float, within_s: float | None) -> list[str]:
    read = await _read(forms, limit_s, within_s)
    return [render(form, read) for form in forms]


async def _read(
    forms: Sequence[Form], limit_s: float | None = None, within_s: float | None = None
) -> dict[str, str | None]:
    """The key of every expression in the forms, None if it is not read in time; the start counts in `within_s` only."""
    latex = sorted({text for form in forms for text in symbolic_values(form)})
    read: dict[str, str | None] = dict.fromkeys(latex)
    if not latex:
        return read

    async def one(text: str) -> None:
        read[text] = await symbolic.key(text)

    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await symbolic.start()
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as reading:
                for text in latex:
                    reading.create_task(one(text))
    return read


def _undecided(gold: Form, answer: Form, read: Mapping[str, str | None]) -> bool:
    """Whether math-verify may know more than the keys: of what is not read, of a tuple and a set, and of functions of
    which one is defined for positive numbers only.
    """
    if isinstance(gold, Group) and isinstance(answer, Group):
        ordered = [form.kind == "sequence" for form in (gold, answer)]
        if ordered[0] != ordered[1] or len(gold.parts) != len(answer.parts):
            return ordered[0] != ordered[1]
        return any(_undecided(*parts, read) for parts in zip(gold.parts, answer.parts, strict=True))
    if isinstance(gold, Group) or isinstance(answer, Group):
        return any(read[text] is None for form in (gold, answer) for text in symbolic_values(form))
    if any(not form.symbolic and not _RATIONAL.fullmatch(form.key) for form in (gold, answer)):
        return False
    keys = [read[form.key] if form.symbolic else form.key for form in (gold, answer)]
    kinds = {key[0] if key[0] in "+=" else "" for key in keys if key is not None}
    return None in keys or len(kinds) > 1


def _rounded(gold: Form, answer: Form, read: Mapping[str, str | None]) -> bool:
    """Whether numbers, one by one, are close."""
    if isinstance(gold, Group) and isinstance(answer, Group):
        return all(_rounded(*parts, read) for parts in zip(gold.parts, answer.parts, strict=True))
    keys = [render(form, read) for form in (gold, answer)]
    if keys[0] == keys[1]:
        return True
    try:
        return _close(*map(Fraction, keys))
    except ValueError:
        return False


def _close(gold: Fraction, answer: Fraction) -> bool:
    if gold.denominator == answer.denominator == 1:
        return gold == answer
    return abs(gold - answer) <= _TOLERANCE * abs(gold)
