r"""Graders of others, to compare ours with. Each takes a text and a gold answer and says what it read and its verdict.

lm-evaluation-harness grades GSM8K by two filters of its task `gsm8k` (version 3, `lm_eval/tasks/gsm8k/gsm8k.yaml`). Its
regular expressions and what its `exact_match` ignores are configuration, and are here; what it does with them, and that
this does the same, is in docs/grading.md. math-verify is used as its README shows: gold and text parsed with all
defaults, then verified.
"""

import logging
import re
from dataclasses import dataclass
from typing import Protocol

from bench.grading.pairs import Pair


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a grader made of a pair."""

    read: str | None
    """The answer it read in the text; None if it read none."""
    correct: bool


class Grader(Protocol):
    """Grades one pair, by its text and gold answer alone."""

    def __call__(self, pair: Pair) -> Verdict: ...


_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (",", r"\$", "(?s).*#### ", r"\.$")))


def strict_match(pair: Pair) -> Verdict:
    """lm-evaluation-harness' `strict-match`: the first `#### N`."""
    found = _STRICT.search(pair.text)
    return _exact_match(found[1].strip() if found else None, pair.gold)


def flexible_extract(pair: Pair) -> Verdict:
    """lm-evaluation-harness' `flexible-extract`: the last thing that looks like a number."""
    found = [match[0] for match in _FLEXIBLE.finditer(pair.text)]
    return _exact_match(found[-1].strip() if found else None, pair.gold)


def _exact_match(read: str | None, gold: str) -> Verdict:
    return Verdict(read, read is not None and _bare(read) == _bare(gold))


def _bare(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def math_verify(pair: Pair) -> Verdict:
    """math-verify's own parse of both sides and its verdict, in this process' main thread.

    Raises:
        ValueError: it was called in another thread, where its time limits do not work.
    """
    import math_verify as theirs  # type: ignore[import-untyped]  # noqa: PLC0415

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    gold, read = theirs.parse(f"${pair.gold}$"), theirs.parse(pair.text)
    return Verdict(str(read[-1]) if read else None, bool(theirs.verify(gold, read)))
