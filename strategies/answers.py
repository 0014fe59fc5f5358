r"""Answers: what a solution says its answer is, and which answers are the same. It votes in the server and grades.

Two answers are the same if their canonical keys are. Grading asks math-verify about the pair as well, which alone would
be no ground for a vote: it is neither symmetric nor transitive.
"""

import asyncio
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from strategies import symbolic
from strategies.normal_forms import (
    DIGITS,
    MAX_LENGTH,
    Form,
    Value,
    clean,
    decimal,
    has_words,
    parse,
    render,
    symbolic_values,
    to_latex,
)
from strategies.thinking import split
from strategies.voting import Outcome, vote

__all__ = ["Exact", "Outcome", "canonical", "equivalent", "extract", "vote"]

_BRACES = re.compile(r"(\\{1,3}(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_OPEN_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*+\{(?!\s*+\})|\s++(?!\{)|(?=\d))([^\n$]++)")
_MARKER = re.compile(
    r"^\#{4}[ \t]*+(?:(?=[-+$\\(.\d])(?!\(?\w++[.)][ \t]++\S)|(?=\S++\s*+\Z))"
    r"|<answer>\s*+"
    r"|\b(?:option|choice)\s+is[:*_\s]{0,8}(?=\(?(?-i:[A-H])\b(?!\s\w))"
    r"|^[#*_ \t]*+(?:final\s)?answer[*_: \t]*+\n\s*+"
    r"|\banswers?\b[*_\s]{0,4}(?:(?!\b(?:is|are|was|be)\b)[^.?!:=\n]){0,60}(?:\b(?:is|are|was|be)\b|[:=])[:*_\s]{0,8}",
    re.IGNORECASE | re.MULTILINE,
)
_MARKERS_TRIED = 4
_REACH = 1000
"""Characters behind a marker in which its answer begins and ends."""
_OPTION = re.compile(r"(?:(?i:option|choice)\s+)?[*_]*(?:\(([A-H])\)|([A-H])(?=[).:]|[*_\s]*$))", re.MULTILINE)
_FORMULA = r"(?:\$\$[^$]++\$\$|\$(?!\s)[^$\n]++(?<!\s)\$(?!\d)|\\\((?:(?!\\\)).)++\\\)|\\\[(?:(?!\\\]).)++\\\])"
_FORMULAS = re.compile(rf"{_FORMULA}(?:(?:\s*,)?\s*(?:,|and|or)\s*{_FORMULA})*+", re.DOTALL)
_CLAUSE = re.compile(r"[,;]?\s+(?:because|since|as|which|where)\s.*|[.!?](?:\s.*|$)|</answer>.*")
_NUMBER = re.compile(
    rf"(?:(?<![\w)\]}}.])[-−])?(?:\\[dt]?frac\{{\d++\}}\{{\d++\}}|(?<![A-Za-z_\d.]){DIGITS}(?:/\d++)?)(?!\d|(?:st|nd|rd|th)\b)\s?%?"
)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s)")
_TEXT = re.compile(r"\s*\\(?:text(?:bf|rm|it)?|mbox|mathrm)\{(?:\(([A-H])\)|([^{}]*))\}\s*\.?\s*")
_OPERATOR = re.compile(r"\\(?:times|cdot|div|[dt]?frac|left|right|text|mbox|[,!%$ ()\[\]])")
_UNKNOWN = re.compile(r"\\|(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
"""A symbol or a function, after the operators are gone."""
_RATIONAL = re.compile(r"-?\d+(?:/\d+)?")
_TOLERANCE = Fraction(1, 1_000_000)
"""Relative error up to which a rounded decimal is taken for the number, as math-verify does."""


class Exact(str):
    """An answer in a form of its own, as JSON is: the same as another only if it is letter by letter."""

    __slots__ = ()


@lru_cache(256)
def extract(text: str, *, truncated: bool = False) -> str | None:
    r"""The answer that a solution gives: its last \boxed{}, else what its last marker names, else its last number.

    Markers are `#### …`, `<answer>`, `Answer:` and `answer is …`. A thought does not count, nor does anything else up
    to `</think>`. In a truncated text only a complete box, or a marker whose sentence is complete, is an answer.
    """
    text = split(text).answer.rpartition("</think>")[2]
    if box := _boxed(text):
        return _tidy(box)
    if truncated:
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        return _marked(text[: ends[-1]]) if ends else None
    if boxes := _OPEN_BOX.findall(text):
        return _tidy(boxes[-1])
    return _marked(text) or _last_number(text)


def _boxed(text: str) -> str | None:
    """What is in the last box that is closed and not empty; of nested ones, the inner."""
    boxes: list[tuple[int, int]] = []
    opened: list[int | None] = []
    for token in _BRACES.finditer(text):
        if token[1]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None and text[start : token.start()].strip():
                boxes.append((start, token.start()))
    return text[slice(*max(boxes))] if boxes else None


def _marked(text: str) -> str | None:
    markers = list(_MARKER.finditer(text))[-_MARKERS_TRIED:]
    stated = (_stated(text[marker.end() : marker.end() + _REACH]) for marker in reversed(markers))
    return next(filter(None, stated), None)


def _stated(rest: str) -> str | None:
    """The answer at the beginning of `rest`: an option, a formula, the only number of a sentence, or a phrase."""
    if option := _OPTION.match(rest):
        return option[1] or option[2]
    if formulas := _FORMULAS.match(rest):
        return _tidy(formulas[0])
    phrase = _CLAUSE.sub("", rest.partition("\n")[0])
    if decimal(phrase) is None and has_words(clean(phrase)):
        found = _FORMULAS.findall(phrase) or _NUMBER.findall(phrase)
        if len(found) == 1:
            return _tidy(found[0])
    return _tidy(phrase)


def _last_number(text: str) -> str | None:
    numbers = _NUMBER.findall(text)
    return _tidy(numbers[-1]) if numbers else None


def _tidy(answer: str) -> str | None:
    r"""The answer without delimiters; a number without separators, currency and unit; `\text{}` as its text.

    Of a calculation, its result.
    """
    answer = answer.strip()
    if len(answer) > MAX_LENGTH:
        return answer
    if (digits := decimal(answer)) is not None:
        return digits
    if (result := _result(answer)) is not None:
        return result
    if text := _TEXT.fullmatch(answer):
        answer = text[1] or text[2]
    bare = re.sub(r"(?<!\\)(?:\\[()\[\]]|\$)", "", answer).strip(" \n\t*_`,;:").rstrip(" .")
    return bare if bare not in ("", r"\boxed{") else None


def _result(answer: str) -> str | None:
    """The number that a calculation comes to, in plain digits: 9 of `16 - 3 - 4 = 9 eggs`; None of an equation."""
    calculation, _, result = answer.rpartition("=")
    if not re.search(r"\d", calculation) or _UNKNOWN.search(_OPERATOR.sub(" ", calculation)):
        return None
    return decimal(result)


VOTE_S = 2.5
"""Seconds that one vote may spend on algebra: expressions that hang must not hold a request up."""


async def canonical(answers: Sequence[str], within_s: float | None = None) -> list[str]:
    """One key an answer, order kept; equal keys are equal answers, by the policy of `strategies.normal_forms`.

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
