r"""Pairs of a text and a gold answer that graders are compared on, most of them with a verdict that is known.

A gold solution with its own answer is right. Each other kind of pair rewrites how a gold solution ends, in a way that
models do and that keeps it right, or puts another answer there. What is right is known from how a pair was made, not
from any grader. Knows no graders.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.stored.records import Record
from bench.tasks import Problem

Kind = str
"""How a pair was made."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A text, and the gold answer to grade it by."""

    data: Literal["gsm8k", "math500", "records"]
    kind: Kind
    text: str
    gold: str
    right: bool | None
    """Whether the text's answer is the gold answer; None if nobody knows."""
    truncated: bool = False
    """Whether the text was cut short."""


GOLD_SOLUTION: Kind = "gold solution"

Ending = Callable[[int, int], str]
"""The gold number and a wrong one → the last words of a solution."""

_PAIR = re.compile(r"^\(([^,()]+),([^,()]+)\)$")
_CLOSED = re.compile(r"^(\\left)?\[")
_LIST = re.compile(r"-?\d+(?:,\s*-?\d+)+")


def _unsized(gold: str) -> str:
    return re.sub(r"\\(?:left|right)(?![a-z])", "", gold)


def _is_single(gold: str) -> bool:
    """Whether it is one expression: no list, tuple, interval, matrix, equation or text."""
    return not re.search(
        r",|=|\\(?:text|mbox|begin|pm|cup|in\b|circ|%|\$)|_|[<>%:]|[A-Za-z]{4,}(?<!frac)(?<!sqrt)", gold
    )


RIGHT_NUMBERS: dict[Kind, Ending] = {
    "boxed": lambda n, _: rf"So the final answer is $\boxed{{{n}}}$.",
    "boxed, number repeated after it": lambda n, _: rf"\[ \boxed{{{n}}} \] Check: 2 * {n} = {2 * n}.",
    "`The answer is N.`": lambda n, _: f"The answer is {n}.",
    "`**Answer:** N`": lambda n, _: f"**Answer:** {n}",
    "thousands with commas": lambda n, _: f"#### {1000 * n:,}",
    "thousands in LaTeX": lambda n, _: rf"\boxed{{{f'{1000 * n:,}'.replace(',', '{,}')}}}",
    "dollar sign": lambda n, _: f"#### ${n}",
    "dollar sign in a box": lambda n, _: rf"\boxed{{\${n}}}",
    "unit in words": lambda n, _: f"The answer is {n} dollars.",
    "unit in a box": lambda n, _: rf"\boxed{{{n} \text{{ miles}}}}",
    "decimals": lambda n, _: f"#### {n}.00",
    "fraction": lambda n, _: rf"\boxed{{\frac{{{2 * n}}}{{2}}}}",
    "calculation and its result": lambda n, _: f"The answer is {n - 1} + 1 = {n} apples.",
    "text with a number after `####`": lambda n, _: f"#### {n}\n\nI checked this in 3 ways.",
    "offer of more after the answer": lambda n, _: f"The answer is {n}. Do you want 1 more example?",
    "corrected at the end": lambda n, wrong: f"The answer is {wrong}. No, I forgot one. The answer is {n}.",
    "other number in the thoughts": lambda n, wrong: rf"\boxed{{{wrong}}}? Not yet.</think>The answer is {n}.",
    "only a last sentence": lambda n, _: f"Altogether that makes {n} in total.",
}
WRONG_NUMBERS: dict[Kind, Ending] = {
    "wrong number": lambda _, wrong: f"#### {wrong}",
    "wrong box": lambda _, wrong: rf"So the final answer is $\boxed{{{wrong}}}$.",
    "wrong, with the gold number after it": lambda n, wrong: f"The answer is {wrong}. It is not {n}.",
    "wrong box, with the gold number after it": lambda n, wrong: rf"\boxed{{{wrong}}}, and not {n}",
    "gold number, then corrected to a wrong one": lambda n, wrong: f"#### {n}\nWait, I forgot one.\n#### {wrong}",
    "off by a factor of 100": lambda n, _: f"The answer is {n / 100:.2f}.",
    "half off": lambda n, _: rf"\boxed{{{n}.5}}",
    "number of more digits": lambda n, _: f"#### {n},500",
    "two answers at once": lambda n, wrong: rf"\boxed{{{n} \text{{ or }} {wrong}}}",
    "calculation of something else": lambda n, wrong: f"The answer is {n} * {wrong} = {n * wrong}.",
    "option letter": lambda _n, _w: "The answer is (B).",
}
RIGHT_LATEX: dict[Kind, Callable[[str], str]] = {
    "`The final answer is: $…$`": lambda gold: f"Therefore, the final answer is: ${gold}$. I hope it is correct.",
    "displayed": lambda gold: f"Hence the answer is\n\\[ {gold} \\]",
    "boxed, with a number after it": lambda gold: rf"$\boxed{{{gold}}}$ This took 3 steps.",
    "formula within a sentence": lambda gold: f"The answer is ${gold}$, as you can check.",
}
REWRITTEN_LATEX: dict[Kind, Callable[[str], str]] = {
    r"`\dfrac` for `\frac`": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "`a/b` for a fraction": lambda gold: re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", gold),
    r"without `\left` and `\right`": _unsized,
    "without spaces": lambda gold: re.sub(r"(?<![A-Za-z\\]) | (?![A-Za-z])", "", gold),
    "assigned to a letter": lambda gold: f"k = {gold}" if _is_single(gold) else gold,
    "with a degree sign": lambda gold: rf"{gold}^\circ" if gold.isdecimal() else gold,
}
CHANGED_LATEX: dict[Kind, Callable[[str], str]] = {
    "negated": lambda gold: rf"-\left({gold}\right)" if _is_single(gold) and gold != "0" else gold,
    "one added": lambda gold: f"{gold} + 1" if _is_single(gold) else gold,
    "in another order": lambda gold: _PAIR.sub(r"(\2,\1)", _unsized(gold)) if _PAIR.match(_unsized(gold)) else gold,
    "open end for a closed one": lambda gold: _CLOSED.sub(r"\1(", gold),
    "closed end for an open one": lambda gold: re.sub(r"^\((?=-?\d+,\s*\\infty)", "[", gold),
    "root forgotten": lambda gold: re.sub(r"\\sqrt\{(\d+)\}", r"(\1)", gold),
    "part behind the first forgotten": lambda gold: gold.partition(",")[0] if _LIST.fullmatch(gold) else gold,
}


def gold_solutions(data: Literal["gsm8k", "math500"], solved: Iterable[Problem]) -> list[Pair]:
    """Each gold solution as it stands."""
    return [Pair(data, GOLD_SOLUTION, _solution(item), item.gold, True) for item in solved]


def _solution(problem: Problem) -> str:
    if problem.solution is None:
        raise ValueError(f"problem {problem.id} has no gold solution")
    return problem.solution


def numeric_pairs(solved: Sequence[Problem], each: int, seed: int) -> Iterator[Pair]:
    """GSM8K's solutions with another ending, `each` of every kind; those that are positive whole numbers."""
    draw = random.Random(seed)
    whole = [item for item in solved if item.gold.isdecimal() and 2 <= int(item.gold) < 10_000]
    for right, endings in ((True, RIGHT_NUMBERS), (False, WRONG_NUMBERS)):
        for kind, ending in endings.items():
            for item in _some(whole, each, draw):
                gold = int(item.gold)
                wrong = draw.choice([gold + 1, gold - 1, 2 * gold, 10 * gold])
                scaled = str(1000 * gold) if kind.startswith("thousands") else item.gold
                yield Pair("gsm8k", kind, _body(item) + ending(gold, wrong), scaled, right)
    for item in _some(whole, each, draw):
        body = _body(item).rstrip()
        yield Pair("gsm8k", "cut short before its answer", body[: 2 * len(body) // 3], item.gold, False, True)


def _body(item: Problem) -> str:
    """A GSM8K solution without its calculator notes and its answer."""
    return re.sub(r"<<[^>]*>>", "", _solution(item).rpartition("#### ")[0])


def latex_pairs(solved: Sequence[Problem], each: int, seed: int) -> Iterator[Pair]:
    """MATH-500's gold answers with another ending or in another form, and wrong ones, up to `each` of every kind."""
    draw = random.Random(seed)
    for kind, ending in RIGHT_LATEX.items():
        for item in _some(solved, each, draw):
            yield Pair("math500", kind, _opening(item) + ending(item.gold), item.gold, True)
    for kind, rewrite in REWRITTEN_LATEX.items():
        changed = [item for item in solved if rewrite(item.gold) != item.gold]
        for item in _some(changed, each, draw):
            yield _boxed(item, kind, rewrite(item.gold), right=True)
    for kind, change in CHANGED_LATEX.items():
        for item in _some([item for item in solved if change(item.gold) != item.gold], each, draw):
            yield _boxed(item, kind, change(item.gold), right=False)
    numbers = [item for item in solved if item.gold.lstrip("-").isdecimal()]
    for item in _some(numbers, each, draw):
        yield _boxed(item, "wrong number", str(int(item.gold) + 1), right=False)
    others = [item for item in solved if item not in numbers]
    for item in _some(others, each, draw):
        yield _boxed(item, "another problem's answer", _foreign(item, others, draw), right=False)
        yield _boxed(item, "the answer and one more", f"{item.gold}, 97", right=False)


def _some(solved: Sequence[Problem], each: int, draw: random.Random) -> list[Problem]:
    return draw.sample(solved, min(each, len(solved)))


def _boxed(item: Problem, kind: Kind, answer: str, *, right: bool) -> Pair:
    return Pair("math500", kind, rf"{_opening(item)}So it is $\boxed{{{answer}}}$.", item.gold, right)


def _opening(item: Problem) -> str:
    """What a solution says before its last box, without boxes."""
    before = _solution(item).rpartition(r"\boxed")[0].rpartition("\n\n")[0]
    return before.replace(r"\boxed", "") + "\n\n"


def _foreign(item: Problem, others: Sequence[Problem], draw: random.Random) -> str:
    """The answer of a problem of another subject, and of another length, so that it is no other form of this one."""
    strange = [other.gold for other in others if other.subject != item.subject and len(other.gold) != len(item.gold)]
    return draw.choice(strange)


def recorded_pairs(records: Iterable[Record]) -> Iterator[Pair]:
    """Every sample of a run that has its text."""
    for record in records:
        for sample in record.samples:
            if sample.text is not None:
                yield Pair("records", "model's output", sample.text, record.gold, None, sample.truncated)
