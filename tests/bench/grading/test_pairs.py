"""Pairs are made as their kind says: right ones hold the gold answer, wrong ones another, whatever a grader thinks."""

from collections import Counter

import pytest

from bench.grading.pairs import (
    CHANGED_LATEX,
    REWRITTEN_LATEX,
    RIGHT_LATEX,
    RIGHT_NUMBERS,
    WRONG_NUMBERS,
    gold_solutions,
    latex_pairs,
    numeric_pairs,
    recorded_pairs,
)
from bench.stored.records import Record, SampleRecord
from bench.tasks import Problem

NUMBERS = [Problem(str(n), f"{n}?", str(n), solution=f"It is <<{n}={n}>>{n}.\n#### {n}") for n in range(10, 60)]
LATEX = [
    Problem(
        str(n),
        f"{n}?",
        gold,
        subject=f"subject {n % 3}",
        solution=f"First.\n\nSo it is $\\boxed{{{gold}}}$.",
    )
    for n in range(12)
    for gold in [str(n), rf"\frac{{{n}}}{{13}}", rf"\left( {n}, 100 \right)"][n % 3 :][:1]
]


def test_a_gold_solution_is_right_as_it_stands() -> None:
    (pair,) = gold_solutions("gsm8k", NUMBERS[:1])
    assert (pair.text, pair.gold, pair.right) == (NUMBERS[0].solution, "10", True)


def test_a_problem_without_a_solution_is_refused() -> None:
    with pytest.raises(ValueError, match="problem a has no gold solution"):
        gold_solutions("gsm8k", [Problem("a", "?", "1")])


def test_there_are_as_many_of_each_kind_as_asked_for() -> None:
    pairs = list(numeric_pairs(NUMBERS, 5, seed=1))
    counts = Counter((pair.kind, pair.right) for pair in pairs)
    wanted = {(kind, right) for right, kinds in ((True, RIGHT_NUMBERS), (False, WRONG_NUMBERS)) for kind in kinds}
    assert counts == dict.fromkeys(wanted | {("cut short before its answer", False)}, 5)
    assert pairs == list(numeric_pairs(NUMBERS, 5, seed=1)) != list(numeric_pairs(NUMBERS, 5, seed=2))


@pytest.mark.parametrize("kind", RIGHT_NUMBERS)
def test_a_right_ending_holds_the_gold_number(kind: str) -> None:
    for pair in numeric_pairs(NUMBERS, 3, seed=0):
        if pair.kind == kind and kind != "fraction":
            assert pair.gold in pair.text.replace(",", "").replace("{}", "")


def test_a_solution_keeps_neither_its_answer_nor_its_notes() -> None:
    for pair in numeric_pairs(NUMBERS, 3, seed=0):
        assert "<<" not in pair.text
        assert pair.right is not False or f"#### {pair.gold}" not in pair.text.splitlines()[-1:]


def test_latex_is_written_in_other_ways() -> None:
    pairs = list(latex_pairs(LATEX, 4, seed=0))
    kinds = {pair.kind for pair in pairs}
    assert {*RIGHT_LATEX, r"`\dfrac` for `\frac`", "`a/b` for a fraction", r"without `\left` and `\right`"} <= kinds
    texts = {pair.kind: pair.text for pair in pairs}
    assert r"\dfrac{" in texts[r"`\dfrac` for `\frac`"]
    assert r"\left" not in texts[r"without `\left` and `\right`"]
    assert {pair.right for pair in pairs if pair.kind in (*RIGHT_LATEX, *REWRITTEN_LATEX)} == {True}


def test_wrong_latex_is_another_answer() -> None:
    wrong = [pair for pair in latex_pairs(LATEX, 4, seed=0) if not pair.right]
    others = {"wrong number", "another problem's answer", "the answer and one more"}
    assert others | {"negated", "one added", "in another order"} <= {pair.kind for pair in wrong}
    assert {pair.kind for pair in wrong} <= others | CHANGED_LATEX.keys()
    assert all(rf"\boxed{{{pair.gold}}}" not in pair.text for pair in wrong)


def test_samples_of_a_run_are_pairs_whose_verdict_is_not_known() -> None:
    samples = (
        SampleRecord("a 5", finish_reason="stop"),
        SampleRecord("b", finish_reason="length"),
        SampleRecord(answer="5"),
    )
    pairs = list(recorded_pairs([Record(id="1", gold="5", samples=samples)]))
    assert [(pair.text, pair.gold, pair.right, pair.truncated) for pair in pairs] == [
        ("a 5", "5", None, False),
        ("b", "5", None, True),
    ]
