"""A reward model without weights: it recomputes each equation of two numbers that a step states."""

import operator
import re
from collections.abc import Callable, Sequence

from prm import Aggregation, Choice, OnTokens, StepScores, check_solutions

NUMBER = r"(-?\d+(?:\.\d+)?)"
EQUATION = re.compile(rf"{NUMBER}\s*([-+*/×÷])\s*{NUMBER}\s*=\s*{NUMBER}")
OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "×": operator.mul,
    "/": operator.truediv,
    "÷": operator.truediv,
}
TOLERANCE = 0.005
"""Results may be rounded to cents."""


class ArithmeticPRM:
    """Scores a step by whether all equations up to it hold.

    Args:
        right: the score while all of them hold.
        unknown: the score before the first equation.
        wrong: the score from the first false one on.
    """

    name = "arithmetic"
    aggregation: Aggregation = "last"
    selector: Choice = "weighted"
    trained = False

    def __init__(self, right: float = 0.9, unknown: float = 0.5, wrong: float = 0.1) -> None:
        self._right, self._unknown, self._wrong = right, unknown, wrong

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        """Scores each solution; it computes no tokens, so `on_tokens` has nothing to count."""
        check_solutions(solutions)
        return [StepScores(tuple(self._scores(steps))) for steps in solutions]

    def _scores(self, steps: Sequence[str]) -> list[float]:
        scores, score = [], self._unknown
        for step in steps:
            verdicts = [holds(*found) for found in EQUATION.findall(step)]
            if not all(verdicts):
                score = self._wrong
            elif verdicts and score != self._wrong:
                score = self._right
            scores.append(score)
        return scores


def holds(left: str, sign: str, right: str, result: str) -> bool:
    """Whether an equation is true, up to rounding; a division by zero is not."""
    try:
        return abs(OPERATORS[sign](float(left), float(right)) - float(result)) <= TOLERANCE
    except ZeroDivisionError:
        return False
