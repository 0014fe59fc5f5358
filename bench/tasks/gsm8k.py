r"""GSM8K: grade-school word problems, 7,473 to train and 1,319 to test (2110.14168).

    {"question": "A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total does it
     take?",
     "answer": "It takes 2/2=<<2/2=1>>1 bolt of white fiber\nSo the total amount of fabric is 2+1=<<2+1=3>>3 bolts of
     fabric\n#### 3"}

The gold answer is the number behind `####`; `<<…>>` are calculator annotations for training. The records have no ids:
a problem is called after its split and its place there, from 0, as lm-evaluation-harness counts its documents.

Results are reported on the test split; whatever is fitted, is fitted on the train split.
"""

from bench.tasks.base import Problem, Row, RowError, Source, numeric_gold, text

_MARK = "#### "


def read(row: Row, number: str) -> Problem:
    """A record as a problem.

    Raises:
        RowError: a field is missing, or the solution does not end in `#### ` and a number.
    """
    solution = text(row, "answer")
    _, mark, answer = solution.rpartition(_MARK)
    if not mark:
        raise RowError(f"field 'answer' must end in {_MARK!r} and the gold answer, not in {solution[-40:]!r}")
    return Problem(id=number, question=text(row, "question"), gold=numeric_gold(answer), solution=solution)


GSM8K = Source(
    name="gsm8k",
    files={"test": "gsm8k_test.jsonl", "train": "gsm8k_train.jsonl"},
    hub="openai/gsm8k",
    config="main",
    read=read,
    prompts=("boxed", "steps", "cot8", "plain"),
)
