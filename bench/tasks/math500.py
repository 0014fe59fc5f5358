r"""MATH-500: 500 competition problems, five levels and seven subjects (the test split of 2305.20050, from 2103.03874).

    {"problem": "How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?",
     "solution": "The denominator of the rational function factors into $x^2+x-6=(x-2)(x+3)$. Since the numerator is
     always nonzero, there is a vertical asymptote whenever the denominator is $0$, which occurs for $x = 2$ and
     $x = -3$.  Therefore, the graph has $\\boxed{2}$ vertical asymptotes.",
     "answer": "2", "subject": "Algebra", "level": 3, "unique_id": "test/algebra/1072.json"}

The gold answer is LaTeX: a number, an expression, an interval, a matrix, a list or a word. The file of the original
repository writes a level as `Level 3`, the hub's as 3; both are 3 here.
"""

import re
from dataclasses import replace

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, RowError, Source

_LEVEL = re.compile(r"(?:Level )?([1-5])")


def read(row: Row, number: str) -> Problem:
    """A record as a problem.

    Raises:
        RowError: a field is missing, the gold answer cannot be parsed, or the level is none from 1 to 5.
    """
    problem = jsonl.read(row, number)
    if problem.subject is None:
        raise RowError("no field 'subject'")
    level = _LEVEL.fullmatch(problem.level or "")
    if not level:
        raise RowError(f"field 'level' must be 1 to 5, or 'Level 1' to 'Level 5', not {row.get('level')!r}")
    return replace(problem, level=level[1])


MATH500 = Source(
    name="math500",
    files={"test": "math500.jsonl"},
    hub="HuggingFaceH4/MATH-500",
    read=read,
    prompts=("boxed", "steps", "plain"),
)
