"""Percentages of whole numbers, ten problems to show what a task is.

    {"id": "percentages-1", "question": "A coat of 80 euros costs 25 percent less today. What is its price in euros?",
     "result": "60 euros", "kind": "discount"}

The gold answer is the number of `result`, without its unit.
"""

from bench.tasks import Problem, Row, Source, numeric_gold, optional_text, text


def read(row: Row, number: str) -> Problem:
    """A record as a problem.

    Raises:
        RowError: a field is missing, or the result is no number.
    """
    return Problem(
        id=optional_text(row, "id") or number,
        question=text(row, "question"),
        gold=numeric_gold(text(row, "result").split()[0]),
        subject=optional_text(row, "kind"),
    )


PERCENTAGES = Source(
    name="percentages",
    files={"test": "percentages_test.jsonl"},
    hub=None,
    read=read,
    prompts=("boxed", "steps"),
)
