r"""AIME 2024 and 2025: the 30 problems of each year's two American Invitational Mathematics Examinations.

    {"id": 60,
     "problem": "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards. When
     she walks at a constant speed of $s$ kilometers per hour, the walk takes her 4 hours, including $t$ minutes
     spent in the coffee shop. When she walks $s+2$ kilometers per hour, the walk takes her 2 hours and 24 minutes,
     including $t$ minutes spent in the coffee shop. Suppose Aya walks at $s+\\frac{1}{2}$ kilometers per hour. Find
     the number of minutes the walk takes her, including the $t$ minutes spent in the coffee shop.",
     "solution": "\\boxed{204}",
     "url": "https://artofproblemsolving.com/wiki/index.php/2024_AIME_I_Problems/Problem_1"}

Every answer is an integer from 0 to 999, sometimes written with leading zeros. The records of 2025 have an `answer`
and no `solution`. Thirty problems are few: one more solved is 3.3 percentage points.
"""

from dataclasses import replace

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, RowError, Source, numeric_gold


def read(row: Row, number: str) -> Problem:
    """A record as a problem.

    Raises:
        RowError: a field is missing, or the answer is no integer from 0 to 999.
    """
    problem = jsonl.read(row, number)
    gold = numeric_gold(problem.gold)
    if not (gold.isdecimal() and int(gold) <= 999):
        raise RowError(f"the gold answer must be an integer from 0 to 999, not {problem.gold!r}")
    return replace(problem, gold=str(int(gold)))


AIME24 = Source(
    name="aime24",
    files={"test": "aime24.jsonl"},
    hub="math-ai/aime24",
    read=read,
    prompts=("boxed", "steps", "plain"),
)
AIME25 = Source(
    name="aime25",
    files={"test": "aime25.jsonl"},
    hub="math-ai/aime25",
    read=read,
    prompts=("boxed", "steps", "plain"),
)
