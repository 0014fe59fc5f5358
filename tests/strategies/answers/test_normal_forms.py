r"""Which answers share a key: different answers that look alike, and one answer in several notations.

Every pair is keyed together with all others, so that one run of the worker reads them.
"""

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.answers import canonical, equivalent

DIFFERENT = {
    "floor, ceiling, gcd, max: by structure": [
        (r"\lfloor \frac{n}{2} \rfloor", r"\lfloor \frac{n}{3} \rfloor"),
        (r"\lfloor n/1000 \rfloor", "0"),
        (r"\lceil n \rceil", r"\lfloor n \rfloor + 1"),
        (r"\gcd(m,n)", r"\gcd(m,2n)"),
        (r"\gcd(n,6)", "1"),
        (r"\operatorname{lcm}(m,n)", "mn"),
        (r"\max(a,b)", "a"),
        (r"\max(x,0)", "x"),
        (r"n \mod 2", "n"),
        ("f(x)", "f(y)"),
        ("|x|", "x"),
        ("|x-10^9|", "10^9-x"),
        (r"\cos(2\pi n)", "1"),
    ],
    "tiny, huge, and close": [
        ("e^{-100}", "0"),
        ("e^{-100}", "e^{-200}"),
        (r"\frac{\sqrt{2}}{10^{40}}", r"\frac{\sqrt{3}}{10^{40}}"),
        ("e^{100}+1", "e^{100}"),
        ("x^{2006}-1", "x^{2006}+1"),
        ("2^{2006}-2", "2^{2006}-3"),
        (r"\frac{1}{1850!}", r"\frac{1}{1853!}"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        (r"\sqrt{10^{100}+1}", "10^{50}"),
        (r"\log_{10}(10^{100}+1)", "100"),
        ("9^{9^{9}}", "8^{8^{8}}"),
    ],
    "no value": [
        (r"\frac{1}{0}", r"\frac{2}{0}"),
        (r"\infty", r"\frac{1}{0}"),
        ("1<2", "3<4"),
        ("1=1", "x=x"),
        (r"18 = 3 \times 6", r"20 = 4 \times 5"),
    ],
    "times": [("7:00 am", "3:00 pm"), ("8 am", "8"), ("12:00 noon", "12:00 midnight"), ("9:00 p.m.", "9:00 a.m.")],
    "names": [
        ("x=1, y=2", "x=2, y=1"),
        ("p=3, r=5", "p=3, q=5"),
        ("x_1=1, x_2=2", "x_1=2, x_2=1"),
        ("(x,y)=(1,2)", "(y,x)=(1,2)"),
        (r"\vec{v}=(1,2)", r"\vec{v}=(3,4)"),
        ("3 red, 5 blue", "5 red, 3 blue"),
        ("f(1)=2, f(2)=3", "f(1)=3, f(2)=2"),
        ("2, 2", "2"),
    ],
    "words that change a value": [
        ("1.5", "1.5 million"),
        ("3 billion", "3 million"),
        ("2", "2 dozen"),
        ("3 thirds", "3"),
        ("5 more", "5 less"),
        ("5 km north", "5 km south"),
        ("20% increase", "20% decrease"),
        ("7 squared", "7"),
    ],
    "digits": [
        ("10 000", "0"),
        ("12 345", "357"),
        ("3 4", "7"),
        ("10 000/3", "10"),
        ("√12", "2"),
        ("2(3)", "5"),
        ("3–5", "-2"),
        ("0.333...", "0.333"),
        ("0.12...", "0.12"),
        ("1,234,567", r"\{1,234,567\}"),
    ],
    "bases": [(r"1A3_{12}", r"1A3_{13}"), ("2A_{16}", "2B_{16}"), ("101 base two", "101"), ("FF_{16}", "FE_{16}")],
    "degrees": [(r"\sin 30°", r"\sin 30"), (r"\sin x^\circ", r"\sin x"), (r"30^\circ 15'", "45")],
    "cases of letters and marks": [
        (r"\pi(R^2-r^2)", r"\pi(r^2-R^2)"),
        (r"\Delta", r"\delta"),
        ("f'(0)", "f(0)"),
        (r"4\text{A}", r"4\text{B}"),
    ],
    "what the parser guesses": [
        (r"\angle ABC", r"\angle BCA"),
        (r"1+2+\cdots+n", r"1+2+\cdots+m"),
        (r"3 \pmod{7}", "3"),
        ("1/2x", r"\frac{x}{2}"),
        (r"\frac{1}{2", r"\frac{1}{2}"),
        ("5?", "5"),
    ],
    "signs of roots and logarithms": [
        (r"\sqrt{x^2}", "x"),
        (r"\sqrt{(x-1)^2}", "x-1"),
        (r"\sqrt{x+y}", r"\sqrt{x}+\sqrt{y}"),
        (r"\ln(x+y)", r"\ln x+\ln y"),
    ],
    "relations": [
        ("x<y", "x>y"),
        ("x<y", r"x \le y"),
        ("x > 2 and x < 5", "x > 2 or x < 5"),
        ("x+y=5", "x-y=5"),
        (r"\{x\in\mathbb{Z} \mid x \ge 0\}", r"[0,\infty)"),
    ],
}
"""Pairs that share no key and of which none is right for the other."""

SAME = {
    "structure": [
        (r"\lfloor n/2 \rfloor + 1", r"1 + \left\lfloor \frac{n}{2} \right\rfloor"),
        (r"\lceil x \rceil", r"-\lfloor -x \rfloor"),
        (r"\max(a,b)", r"\max(b,a)"),
        (r"2\gcd(m,n)", r"\gcd(n,m) \cdot 2"),
        (r"\gcd(12,18)", "6"),
        ("|x-1|", r"\left|1-x\right|"),
        (r"\binom{n}{k}", r"\frac{n!}{k!(n-k)!}"),
        (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    ],
    "names": [
        ("m=2, n=3", "n=3, m=2"),
        ("(a,b)=(2,-1)", "a=2, b=-1"),
        ("x=2 or x=5", "x=5, x=2"),
        (r"\vec{v}=(1,2)", "(1,2)"),
        (r"f^{-1}(x)=\frac{x-1}{2}", r"\frac{x-1}{2}"),
        (r"m\angle A = 60^\circ", "60"),
        ("3 red, 5 blue", "5 blue, 3 red"),
        ("3 cm, 5 cm", "5, 3"),
    ],
    "magnitudes and times": [
        ("1500000", "1.5 million"),
        ("2 dozen eggs", "24"),
        ("300000", "3 hundred thousand"),
        ("8:30 PM", "8:30 p.m."),
        ("5 pm", "05:00 pm"),
    ],
    "digits": [
        ("10000", "10 000"),
        ("12345", r"12\ 345"),
        ("10000", "10\u202f000"),
        ("1250", r"1\;250"),
        ("100, 200, 300", "100,200,300"),
        ("1,234,567", "1234567"),
        ("2(3)", "6"),
        ("12", "\ufeff12"),
        ("12", "１２"),
        ("3", "3\u200b"),
        ("negative 7", "-7"),
    ],
    "signs of one letter": [
        (r"\frac13", "⅓"),
        ("3.25", "3¼"),
        ("x⁴", "x^4"),
        ("10⁻³", "0.001"),
        (r"2\sqrt{3}", "√12"),
        ("∛8", "2"),
        ("2πr", r"2\pi r"),
        ("1011₂", "1011_2"),
    ],
    "bases and degrees": [
        ("1011_2", "(1011)_2"),
        ("1011_2", r"1011_{\text{two}}"),
        ("101 base 2", "101_2"),
        ("15_{10}", "15"),
        (r"\frac12", r"\cos 60°"),
        ("1", r"\tan 45^\circ"),
        (r"\sin(30^\circ+30^\circ)", r"\frac{\sqrt3}{2}"),
    ],
    "repeating decimals": [
        (r"\frac13", r"0.\overline{3}"),
        (r"\frac16", r"0.1\overline{6}"),
        (r"\frac13", r"0.\dot{3}"),
        (r"\frac17", r"0.\dot{1}4285\dot{7}"),
        (r"\frac13", "0.(3)"),
        (r"\frac16", "0.1666..."),
        ("1", r"0.\overline{9}"),
    ],
    "relations": [
        (r"(-\infty,-2]\cup[5,\infty)", r"x \le -2 \text{ or } x \ge 5"),
        ("x > 2 and x < 5", "(2,5)"),
        (r"(2,\infty)", r"\{x \mid x > 2\}"),
        (r"\{x \in \mathbb{R} : x \neq 2\}", r"\mathbb{R}\setminus\{2\}"),
        ("]1,2]", "(1,2]"),
        (r"(-\infty,\infty)", r"\mathbb{R}"),
        ("x<y", "2y>2x"),
        ("x+y=5", "2x+2y=10"),
    ],
    "positive variables": [
        (r"\frac{1}{\sqrt{m}}", r"\sqrt{1/m}"),
        (r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}"),
        (r"\ln(xy)", r"\ln x+\ln y"),
        (r"2\log_2 x", r"\log_2(x^2)"),
        (r"\sqrt{x^2}", "|x|"),
        (r"(\sqrt{x}+1)(\sqrt{x}-1)", "x-1"),
        (r"\sqrt[3]{-27}", "-3"),
    ],
    "units": [
        (r"12\sqrt{3}", r"12\sqrt{3} cm"),
        (r"12\pi", r"12\pi\text{ cm}^2"),
        (r"5 \text{ m}", "5 m"),
        ("9.8", "9.8 m/s^2"),
        ("-5", "-5°C"),
        ("60", "60 km/h"),
        (r"2x \text{ cm}", "2x"),
    ],
    "notation": [
        (r"\emptyset", r"\varnothing"),
        (r"\{1,2,3\}", "{3, 2, 1}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"),
        ("5", r"\approx 5"),
        ("12", r"\color{red}{12}"),
        ("12", r"\text{The area is }12"),
        (r"15\frac{39}{40} and \frac{639}{40}", r"\frac{639}{40}"),
        (r"\sqrt{2} \approx 1.414", r"\sqrt2"),
        ("x^((n+1)/2)", r"x^{\frac{n+1}{2}}"),
        (r"\frac\pi2", r"\frac{\pi}{2}"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"e^{i\pi/2}", "i"),
    ],
}
"""Pairs that are one answer in a vote and in a grade."""


def flat(groups: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [pair for pairs in groups.values() for pair in pairs]


@pytest.mark.parametrize("kind", DIFFERENT)
def test_different_answers_share_no_key_and_none_is_right_for_the_other(kind: str) -> None:
    async def main() -> list[tuple[str, str]]:
        keys = await canonical([answer for pair in DIFFERENT[kind] for answer in pair])
        joined = {pair for pair, one, other in zip(DIFFERENT[kind], keys[::2], keys[1::2], strict=True) if one == other}
        return [
            pair
            for pair in DIFFERENT[kind]
            if pair in joined or await equivalent(*pair) or await equivalent(pair[1], pair[0])
        ]

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("kind", SAME)
def test_one_answer_has_one_key_in_every_notation(kind: str) -> None:
    async def main() -> list[tuple[str, str]]:
        keys = await canonical([answer for pair in SAME[kind] for answer in pair])
        return [pair for pair, one, other in zip(SAME[kind], keys[::2], keys[1::2], strict=True) if one != other]

    assert asyncio.run(main()) == []


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("5", "5 less", True),
        ("5", "6 less", False),
        ("20", "20% decrease", True),
        (r"\sqrt{2}", "1.4142136", True),
        (r"\sqrt{2}", "1.414", False),
        (r"(1,\sqrt{2})", "(1, 1.4142136)", True),
        ("2x-y=4", "y=2x-4", True),
        ("(1,2)", r"\{1,2\}", True),
        (r"(e^{-50},1)", "(e^{-60},1)", False),
    ],
)
def test_a_grade_knows_more_than_keys(gold: str, answer: str, *, right: bool) -> None:
    assert asyncio.run(equivalent(gold, answer)) is right


COEFFICIENTS = st.integers(-9, 9)


@settings(max_examples=40, deadline=None)
@given(st.lists(COEFFICIENTS, min_size=3, max_size=3), st.lists(COEFFICIENTS, min_size=3, max_size=3))
def test_polynomials_share_a_key_if_their_coefficients_are_the_same(one: list[int], other: list[int]) -> None:
    def plain(a: int, b: int, c: int) -> str:
        return f"({a})x^2+({b})xy+({c})"

    def nested(a: int, b: int, c: int) -> str:
        return rf"x\left(({b})y+({a})x\right)-({-c})"

    first, again, second = asyncio.run(canonical([plain(*one), nested(*one), plain(*other)]))
    assert first == again
    assert (first == second) == (one == other)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60))
def test_structure_is_told_by_its_arguments(one: int, other: int) -> None:
    def forms(n: int) -> list[str]:
        return [rf"\lfloor \frac{{x}}{{{n}}} \rfloor", rf"\gcd({n},y)", rf"\max(x,{n})", rf"|x-{n}|", rf"y \mod {n}"]

    keys = asyncio.run(canonical([*forms(one), *forms(other)]))
    assert [a == b for a, b in zip(keys[:5], keys[5:], strict=True)] == [one == other] * 5
    assert len(set(keys[:5])) == 5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.text("0123456789", max_size=3), st.text("0123456789", min_size=1, max_size=4))
def test_a_repeating_decimal_is_its_fraction(whole: int, fixed: str, period: str) -> None:
    shift, turn = 10 ** len(fixed), 10 ** len(period) - 1
    value = whole + Fraction(int(fixed or 0), shift) + Fraction(int(period), shift * turn)
    (key,) = asyncio.run(canonical([rf"{whole}.{fixed}\overline{{{period}}}"]))
    assert key == str(value)


@settings(max_examples=60, deadline=None)
@given(st.integers(1000, 10**12), st.sampled_from([" ", "\u00a0", "\u202f", r"\,", r"\ ", r"\;", "{,}", ",", "~"]))
def test_groups_of_digits_are_one_number(value: int, gap: str) -> None:
    (key,) = asyncio.run(canonical([f"{value:,}".replace(",", gap)]))
    # 100,200,300 is a list: round numbers of three digits each.
    assert key == str(value) or (gap in {",", "{,}"} and value % 10 == 0)


@settings(max_examples=60, deadline=None)
@given(st.text("abx123()[]{}^_+-*/=<>,.:|!' \\", max_size=14))
def test_whatever_is_written_has_a_key_and_the_same_one_again(answer: str) -> None:
    one, other, five = asyncio.run(canonical([answer, f" {answer} ", "5"]))
    assert one == other
    assert five == "5"
