"""Texts in, verdicts out: the faults that other graders have, as seen by a whole pair (the parts: test_answers)."""

import asyncio

import pytest

from bench.grading.grade import Grade, answers_correct, grade


def graded(text: str, gold: str, *, truncated: bool = False) -> Grade:
    return asyncio.run(grade(text, gold, truncated=truncated))


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("<think>\\boxed{3}</think>\nThe answer is 5.", "5"),
        (r"First \boxed{3}, then \boxed{\frac{a}{b}}.", r"\frac{a}{b}"),
        ("Therefore, the final answer is: $\\boxed{70\\sqrt{2}}$. I hope it is correct.", r"70\sqrt{2}"),
        (r"The final answer is $70\sqrt{2}$.", r"70\sqrt{2}"),
        (r"\boxed{1{,}234}", "1234"),
        (r"It is \boxed{10\!\,080}.", r"10\!\,080"),
        (r"In base two: \boxed{11_2}", "11_{2}"),
        ("The answer is Monday.", r"\text{Monday}"),
        (r"The river flows \boxed{east}.", r"\text{East}"),
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"),
        (r"so it is \boxed{7", "7"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", "(1,2)"),
        ("The answer is 0.333333.", r"\frac{1}{3}"),
        ("The answer is (C).", r"\text{(C)}"),
        ("Answer: 50%", "50"),
        (r"\boxed{50\%}", "0.5"),
        (r"\boxed{10^\circ}", "10"),
        ("It takes 15 hours.\n#### 15 hours", "15"),
        (r"\boxed{y = 2x + 1}", "2x+1"),
        (r"\boxed{x = 5}", "5"),
        ("x > 2 is it, so \\boxed{x > 2}", r"(2,\infty)"),
    ],
)
def test_right(text: str, gold: str) -> None:
    assert graded(text, gold).correct


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"\boxed{70}", r"70\sqrt{2}"),
        (r"\boxed{1}", "1234"),
        (r"\boxed{90}", r"10\!\,080"),
        (r"\boxed{11}", "11_2"),
        (r"\boxed{\text{Tuesday}}", "Monday"),
        ("The answer is 0.333.", r"\frac{1}{3}"),
        ("The answer is 10000.9.", "10000"),
        ("The answer is 0.5.", "50"),
        (r"\boxed{\{2, 1\}}", "(1,2)"),
        ("The answer is 3.\nThat is no 5.", "5"),
        ("A train travels far.", "A"),
        ("No answer at all.", "0"),
    ],
)
def test_wrong(text: str, gold: str) -> None:
    assert not graded(text, gold).correct


def test_a_text_without_an_answer_is_wrong_and_says_so() -> None:
    assert graded("Hello!", "5") == Grade(None, False)


def test_a_truncated_text_needs_a_complete_answer() -> None:
    assert graded("The answer is 18", "18") == Grade("18", True)
    assert graded("The answer is 18", "18", truncated=True) == Grade(None, False)
    assert graded(r"\boxed{18} and now", "18", truncated=True) == Grade("18", True)


def test_gold_comes_first() -> None:
    assert graded(r"\boxed{x > 2}", r"(2,\infty)").correct
    assert graded(r"\boxed{(2,\infty)}", "x > 2").correct


def test_an_answer_that_hangs_is_wrong_and_the_next_is_graded() -> None:
    assert not graded(r"\boxed{10^{10^{10^{10}}} + 3}", "7").correct
    assert graded(r"\boxed{3!}", "6").correct


def test_many_answers_are_graded_in_their_order() -> None:
    pairs = [("2", "2"), ("2", "3"), ("2", None), (r"\sqrt{4}", "2"), ("2", "2"), ("1/2", "0.5"), ("None", None)]
    assert asyncio.run(answers_correct(pairs)) == [True, False, False, True, True, True, False]
    assert asyncio.run(answers_correct([])) == []
