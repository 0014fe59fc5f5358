"""lm-evaluation-harness' filters on what its configuration says, and math-verify from end to end."""

import pytest

from bench.grading_pairs import Pair
from bench.outside_graders import Verdict, flexible_extract, math_verify, strict_match


def pair(text: str, gold: str = "18") -> Pair:
    return Pair("gsm8k", "made here", text, gold, None)


@pytest.mark.parametrize(
    ("text", "gold", "strict", "flexible"),
    [
        ("9 * 2 = 18\n#### 18", "18", Verdict("18", True), Verdict("18", True)),
        ("#### 18\n#### 19", "18", Verdict("18", True), Verdict("19", False)),
        ("#### 1,234.", "1234", Verdict("1,234.", True), Verdict("1,234.", True)),
        ("#### $18", "18", Verdict(None, False), Verdict("$18", True)),
        ("#### 18.00", "18", Verdict("18.00", False), Verdict("18.00", False)),
        ("#### -5", "-5", Verdict("-5", True), Verdict("-5", True)),
        ("The answer is 18. Or so ...", "18", Verdict(None, False), Verdict("...", False)),
        ("It is 7", "7", Verdict(None, False), Verdict("7", True)),
        ("none", "18", Verdict(None, False), Verdict(None, False)),
    ],
)
def test_the_filters_of_gsm8k(text: str, gold: str, strict: Verdict, flexible: Verdict) -> None:
    assert strict_match(pair(text, gold)) == strict
    assert flexible_extract(pair(text, gold)) == flexible


def test_math_verify_reads_and_compares() -> None:
    assert math_verify(pair(r"So $\boxed{\frac{36}{2}}$.")).correct
    assert math_verify(pair("Hello!")) == Verdict(None, False)
    assert not math_verify(pair(r"$\boxed{70}$", r"70\sqrt{2}")).correct
