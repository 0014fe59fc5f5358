r"""SVAMP: one-step word problems with numbers that are not needed, 700 to train and 300 to test (2103.07191).

    {"ID": "chal-777",
     "Body": "There are 87 oranges and 290 bananas in Philip's collection. If the bananas are organized into 2
     groups and oranges are organized into 93 groups",
     "Question": "How big is each group of bananas?",
     "Equation": "( 290.0 / 2.0 )", "Answer": "145", "Type": "Common-Division"}

The question is the body and the question, as one text; the body may lack its full stop. The subject is the operation.
The split into train and test is that of the hub's data set: the paper's file has all 1,000 problems in one.
"""

from bench.tasks.base import Problem, Row, Source, numeric_gold, optional_text, text


def read(row: Row, number: str) -> Problem:
    """A record as a problem.

    Raises:
        RowError: a field is missing, or the answer is no number.
    """
    body = text(row, "Body")
    stop = "" if body.endswith((".", "?", "!", ",")) else "."
    return Problem(
        id=optional_text(row, "ID") or number,
        question=f"{body}{stop} {text(row, 'Question')}",
        gold=numeric_gold(text(row, "Answer")),
        subject=optional_text(row, "Type"),
    )


SVAMP = Source(
    name="svamp",
    files={"test": "svamp_test.jsonl", "train": "svamp_train.jsonl"},
    hub="ChilleD/SVAMP",
    read=read,
    prompts=("boxed", "steps", "cot8", "plain"),
)
