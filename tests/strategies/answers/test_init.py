import asyncio
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strategies.answers import canonical, equivalent, extract

DATA = Path(__file__).parents[4] / "shared" / "data"


def keys(*answers: str) -> list[str]:
    return asyncio.run(canonical(answers))


def right(gold: str, answer: str) -> bool:
    return asyncio.run(equivalent(gold, answer))


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
