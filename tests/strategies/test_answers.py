import asyncio
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strategies.answers import canonical, equivalent, extract

DATA = Path(__file__).parents[3] / "shared" / "data"


def keys(*answers: str) -> list[str]:
    return asyncio.run(canonical(answers))


def right(gold: str, answer: str) -> bool:
    return asyncio.run(equivalent(gold, answer))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # the last of its kind, not the first
        (r"First \boxed{1}, no: \boxed{2}.", "2"),
        ("The answer is 3. Wait, the answer is 4.", "4"),
        ("3 apples and 4 pears", "4"),
        (r"The answer is 3, or \boxed{5}", "5"),
        ("There are 7 days.\nThe answer is 3.\nI checked 12 times.", "3"),
        # boxes
        (r"so \boxed{\frac{a}{b}}.", r"\frac{a}{b}"),
        (r"\boxed{\left\{\frac{1}{2}, \sqrt{3}\right\}}", r"\left\{\frac{1}{2}, \sqrt{3}\right\}"),
        (r"\fbox{9}", "9"),
        (r"\boxed 7", "7"),
        (r"\boxed{\text{The answer is } \boxed{5}}", "5"),
        (r"Put it in \boxed{}: the answer is 5.", "5"),
        (r"so it is \boxed{7", "7"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{\text{Evelyn}}", "Evelyn"),
        (r"\boxed{(1, 2]}", "(1, 2]"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\boxed{\$3.50}", "3.50"),
        (r"\boxed{18 \text{ dollars}}", "18"),
        (r"\boxed{10,\!080}", "10080"),
        # markers
        ("9 * 2 = 18\n#### 18", "18"),
        ("#### 1. Compute\nIt is 5.\n#### 2. Sum\nSo 12 apples", "12"),
        ("#### Monday", "Monday"),
        ("<answer>42</answer>", "42"),
        ("**Answer:** 18", "18"),
        ("**Answer**: **18** dollars", "18"),
        ("### Final Answer\n\n18 dollars", "18"),
        ("The answer is **18**.", "18"),
        ("The answer is 42 because 6*7=42", "42"),
        ("The answer is that she makes 18 dollars per day.", "18"),
        ("The answer to the second question is 5.", "5"),
        (r"The final answer is: $70\sqrt{2}$. I hope it is correct.", r"70\sqrt{2}"),
        ("The answer is:\n\\[\nx^2\n\\]", "x^2"),
        ("The answers are $1$ and $2$.", "1 and 2"),
        ("The answer is Monday.", "Monday"),
        ("Answer: 2x + 1", "2x + 1"),
        ("The answer is (1, 2)", "(1, 2)"),
        # the result of a calculation, but no part of an equation
        ("The answer is 16 - 3 - 4 = 9 eggs.", "9"),
        ("Final answer: $1,080 / 4 = $270.", "270"),
        ("Answer = 60 spools / 150 spools * 100% = 40%", "40%"),
        (r"\boxed{6 \times 7 = 42}", "42"),
        (r"The answer is \(\frac{36}{2} = 18\).", "18"),
        (r"\boxed{2x + 3 = 7}", "2x + 3 = 7"),
        (r"\boxed{x_1 + x_2 = 5}", "x_1 + x_2 = 5"),
        (r"\boxed{\theta + 30 = 45}", r"\theta + 30 = 45"),
        (r"\boxed{10 = 2x}", "10 = 2x"),
        # options need their marker
        ("The answer is (C).", "C"),
        ("Answer: C", "C"),
        ("The answer is C) 42", "C"),
        ("The answer is option B: it fits.", "B"),
        ("The correct option is (B)", "B"),
        ("Answer: A train", "A train"),
        ("A train travels fast.", None),
        ("A train travels 3.5 hours", "3.5"),
        # numbers
        ("It took 3.5", "3.5"),
        ("In total 1,234.", "1234"),
        ("It costs $3.50.", "3.50"),
        ("The answer is 50%.", "50%"),
        ("so 3/4 of it", "3/4"),
        (r"It is -\frac{3}{4}", r"-\frac{3}{4}"),
        ("The temperature is -5", "-5"),
        ("10-3", "3"),
        ("the 2nd of many", None),
        # thoughts do not count
        (r"<think>\boxed{3}</think> The answer is 5.", "5"),
        ("<think>Is it 3?</think> Hello!", None),
        ("Hello, how can I help?", None),
        ("", None),
    ],
)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7} and then", "7"),
        (r"\boxed{7", None),
        ("The answer is 1", None),
        ("The answer is 3.5", None),
        ("The answer is 18. And", "18"),
        ("9 * 2 = 18\n#### 18\n", "18"),
        ("9 * 2 = 18\n#### 1", None),
        ("There are 5 apples.\n", None),
    ],
)
def test_extract_takes_only_complete_markers_of_a_truncated_text(text: str, answer: str | None) -> None:
    assert extract(text, truncated=True) == answer


@pytest.mark.parametrize(
    "part",
    [
        *("{", r"\boxed{", r"\boxed ", "\\", "$", r"\(", "111,", "9", "-", "answer ", "answer is the $", "#### ", "\n"),
        *("*_", "answer:\n", "<answer>", "1 ", r"\frac{1}", "$1$,", "1/", ". ", " cm", "</think>"),
    ],
)
def test_extract_is_linear(part: str) -> None:
    """A hang guard, not a measurement: one that backtracks needs minutes to hours for 100 kB, a linear one 0.1 s."""
    body = (part * 100_000)[:100_000]
    started = time.process_time()
    for text in (body, f"Answer: {body}", f"{body}!"):
        extract(text)
        extract(text, truncated=True)
    assert time.process_time() - started < 30


@given(st.text(alphabet=r"\boxed{}$()answer is#.,-+*/ 0123A" + "\n", max_size=80), st.booleans())
def test_extract_gives_none_or_something_to_read(text: str, truncated: bool) -> None:
    answer = extract(text, truncated=truncated)
    assert answer is None or answer.strip() == answer != ""


@given(st.integers(-(10**9), 10**9))
def test_extract_reads_every_form_of_a_number(value: int) -> None:
    texts = [f"So {value:,}.", rf"\boxed{{{value}}}", f"#### {value:,}", f"The answer is {value} dollars."]
    assert {extract(text) for text in texts} == {str(value)}


SAME = [
    ["1/2", "0.5", ".5", r"\frac12", r"\frac{1}{2}", r"\dfrac{1}{2}", r"$\frac 12$", r"\tfrac{2}{4}", "1/2 cup"],
    ["1234", "1,234", "$1,234", r"\$1{,}234", r"1{,}234", r"1,\!234", r"1\,234", "1234.", "**1234**", "1234.0"],
    ["15", "15 cm^2", r"15\mbox{ cm}^2", r"15^\circ", "15°", "15 miles per hour", "15 dollars", "+15", "(15)"],
    ["10080", r"10\!\,080", r"10,\!080", r"10,\! 080"],
    ["50", "50%", r"50\%", "50 percent", r"$50\%$"],
    ["1.8", "9/5", "1 4/5", r"1\frac{4}{5}"],
    ["-1.8", "-9/5", "-1 4/5", r"-1\frac45", r"-\frac{9}{5}", r"\frac{-9}{5}"],
    [".0000672", "6.72e-5", r"6.72 \times 10^{-5}"],
    ["4", r"\sqrt{16}", "2+2", "2^2", r"\frac{8}{2}", "x=4", "$x = 4$", r"\boxed{4}", r"f(x) = 4", r"\{4\}"],
    [r"70\sqrt{2}", r"70 \sqrt 2", "70√2", "70*sqrt(2)", r"\sqrt{9800}", r"\frac{140}{\sqrt2}"],
    ["11_2", "11_{2}", "$11_{2}$"],
    ["11"],
    ["Monday", "monday", r"\text{Monday}", "Monday."],
    ["east", r"\text{East}"],
    [r"\text{Evelyn}", "Evelyn", "EVELYN"],
    ["C", "(C)", r"\text{(C)}", r"\textbf{(C)}", "(C) 42", "c"],
    ["(1,2)", r"\left(1, 2\right)", r"\begin{pmatrix}1\\2\end{pmatrix}", "(x,y)=(1,2)", r"\langle 1, 2\rangle"],
    ["(2,1)"],
    ["[1,2]"],
    ["(1,2]", r"\left( 1, 2 \right]"],
    ["1,2", "2, 1", r"\{1,2\}", "1 and 2", "x=1 or x=2", r"x=1 \text{ or } x=2"],
    [r"1\pm\sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}", r"\{1-\sqrt{19}, 1+\sqrt{19}\}"],
    [r"x \in [-2,7]", "[-2,7]", r"-2 \le x \le 7"],
    [r"(2,\infty)", "x>2", "x > 2", "2 < x"],
    [r"(-\infty,2)\cup(3,\infty)", r"(3,\infty) \cup (-\infty, 2)"],
    [r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}"],
    [r"\begin{pmatrix}1&0\\0&2\end{pmatrix}"],
    ["3:2", "3 : 2"],
    ["3/2", "1.5"],
    ["(a+5)(b+2)", "ab+2a+5b+10", "(b+2)(a+5)"],
    ["x^10", r"x^{10}", "x**10"],
    ["6-5i", "-5i+6"],
    ["-1", r"e^{i\pi}", r"\cos 180^\circ", r"\cos(\pi)"],
    ["y=2x+3", "2x+3", "3+2x"],
    ["5x-7y+11z+4=0", "10x-14y+22z=-8", "-5x+7y=11z+4"],
    [r"\cot x", r"\frac{\cos x}{\sin x}"],
    ["2^{100}", "1267650600228229401496703205376"],
    ["2^{100}+1"],
    [r"\frac{1}{3}"],
    ["0.333"],
    ["2k"],
    ["2ab", "2ba"],
    ["2"],
    ["no solution", "No solution."],
]
"""Answers that are one, and of which no two groups are."""


@pytest.mark.parametrize("group", SAME, ids=lambda group: group[0])
def test_equal_answers_share_one_key(group: list[str]) -> None:
    assert len(set(keys(*group))) == 1


def test_different_answers_do_not_share_a_key() -> None:
    firsts = [group[0] for group in SAME]
    assert len(set(keys(*firsts))) == len(firsts)


@pytest.mark.parametrize(
    "answer", ["", "?", "((((", "}{", "\\", r"\frac{1}{0}", "x" * 100_000, "\0", "\ud800 = 1", "1/0"]
)
def test_what_cannot_be_read_has_a_key_of_its_own(answer: str) -> None:
    first, again, other = keys(answer, answer, "5")
    assert first == again != other


def test_keys_keep_the_order() -> None:
    assert keys("2", r"\sqrt{4}", "1") == ["2", "2", "1"]
    assert keys() == []


@given(st.fractions(min_value=-1000, max_value=1000))
@example(Fraction(-1, 2))
def test_every_form_of_a_fraction_has_its_key(value: Fraction) -> None:
    latex = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert set(keys(str(value), latex, f"${latex}$", f"x = {value}", f"{value} dollars")) == {str(value)}


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True))
def test_a_set_has_no_order_and_a_tuple_has_one(values: list[int]) -> None:
    forwards, backwards = (", ".join(map(str, items)) for items in (values, values[::-1]))
    one, other = keys(forwards, rf"\{{{backwards}\}}")
    assert one == other
    one, other = keys(f"({forwards})", f"({backwards})")
    assert one != other


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("18", "$18.00"),
        (r"\frac{1}{3}", "0.333333"),
        ("0.15", r"15\%"),
        (r"15\%", "0.15"),
        ("50", "50%"),
        ("5", "x=5"),
        ("2x+3", "y = 3+2x"),
        (r"(2,\infty)", "x > 2"),
        (r"\text{(C)}", "C"),
        (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\left(-\frac13, \frac23\right)"),
        (r"11\sqrt{5}+11", r"11(1+\sqrt5)"),
    ],
)
def test_right(gold: str, answer: str) -> None:
    assert right(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{3}", "0.333"),
        ("10000", "10000.9"),
        ("1000000", "1000001"),
        (".0000672", ".000067"),
        ("50", "0.5"),
        ("0.5", "5%"),
        ("3.5", "3"),
        ("1234", "1"),
        (r"70\sqrt{2}", "70"),
        ("11_2", "11"),
        ("[1,2]", "(1,2)"),
        ("(1,2)", "(2,1)"),
        ("2ab", "2"),
        ("Monday", "Tuesday"),
        ("C", "D"),
        ("5", ""),
        ("5", "x" * 1000),
    ],
)
def test_wrong(gold: str, answer: str) -> None:
    assert not right(gold, answer)


def graded(file: str, gold_of: str, solution_of: str, *, behind: str = "") -> list[bool]:
    """Whether each reference solution, as a model's output, is graded right against its own gold answer."""
    path = DATA / file
    if not path.exists():
        pytest.skip(f"the data set {file} is not beside the repository")
    problems = [json.loads(line) for line in path.read_text().splitlines()]

    async def main() -> list[bool]:
        pairs = [(p[gold_of].rpartition(behind)[2] if behind else p[gold_of], p[solution_of]) for p in problems]
        return [await equivalent(gold, extract(solution) or "") for gold, solution in pairs]

    return asyncio.run(main())


def test_every_gsm8k_solution_is_right() -> None:
    verdicts = graded("gsm8k_test.jsonl", "answer", "answer", behind="#### ")
    assert (len(verdicts), sum(verdicts)) == (1319, 1319)


def test_every_math500_solution_is_right() -> None:
    verdicts = graded("math500.jsonl", "answer", "solution")
    assert (len(verdicts), sum(verdicts)) == (500, 500)


def test_a_box_that_was_opened_and_not_filled_is_no_answer() -> None:
    assert extract("So, **Final Answer**\n\n\\[ \\boxed{") is None
