r"""AMC 23: 40 problems of the American Mathematics Competitions 12A and 12B of 2023, asked without their choices.

    {"id": 0,
     "question": "Cities $A$ and $B$ are $45$ miles apart. Alicia lives in $A$ and Beth lives in $B$. Alicia bikes
     towards $B$ at 18 miles per hour. Leaving at the same time, Beth bikes toward $A$ at 12 miles per hour. How
     many miles from City $A$ will they be when they meet?",
     "answer": "27",
     "url": "https://artofproblemsolving.com/wiki/index.php/2023_AMC_12A_Problems/Problem_1"}

The original is multiple choice. The authors of the data set reworded what had no integer for an answer (`find $m+n$`),
so the gold answer is always an integer, which some copies of the data set write as a float.
"""

from dataclasses import replace

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, Source, numeric_gold


def read(row: Row, number: str) -> Problem:
    """A record as a problem; a gold answer 27.0 is 27.

    Raises:
        RowError: a field is missing, or the answer is no number.
    """
    problem = jsonl.read(row, number)
    return replace(problem, gold=numeric_gold(problem.gold))


AMC23 = Source(
    name="amc23",
    files={"test": "amc23.jsonl"},
    hub="math-ai/amc23",
    read=read,
    prompts=("boxed", "steps", "plain"),
)
