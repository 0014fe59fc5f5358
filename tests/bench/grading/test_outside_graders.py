"""lm-evaluation-harness' filters on what its configuration says, and math-verify from end to end."""

from pathlib import Path

import pytest

from bench.grading.outside_graders import Verdict, flexible_extract, math_verify, strict_match
from bench.grading.pairs import Pair


def pair(text: str, gold: str = "18") -> Pair:
    return Pair("gsm8k", "made here", text, gold, None)


CASES = [
    ("9 * 2 = 18\n#### 18", "18", Verdict("18", True), Verdict("18", True)),
    ("#### 18\n#### 19", "18", Verdict("18", True), Verdict("19", False)),
    ("#### 1,234.", "1234", Verdict("1,234.", True), Verdict("1,234.", True)),
    ("#### $18", "18", Verdict(None, False), Verdict("$18", True)),
    ("#### 18.00", "18", Verdict("18.00", False), Verdict("18.00", False)),
    ("#### -5", "-5", Verdict("-5", True), Verdict("-5", True)),
    ("The answer is 18. Or so ...", "18", Verdict(None, False), Verdict("...", False)),
    ("It is 7", "7", Verdict(None, False), Verdict("7", True)),
    ("none", "18", Verdict(None, False), Verdict(None, False)),
]


@pytest.mark.parametrize(("text", "gold", "strict", "flexible"), CASES)
def test_the_filters_of_gsm8k(text: str, gold: str, strict: Verdict, flexible: Verdict) -> None:
    assert strict_match(pair(text, gold)) == strict
    assert flexible_extract(pair(text, gold)) == flexible


def test_math_verify_reads_and_compares() -> None:
    assert math_verify(pair(r"So $\boxed{\frac{36}{2}}$.")).correct
    assert math_verify(pair("Hello!")) == Verdict(None, False)
    assert not math_verify(pair(r"$\boxed{70}$", r"70\sqrt{2}")).correct


def test_the_filters_are_those_of_lm_evaluation_harness() -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    yaml = pytest.importorskip("yaml")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    file = Path(lm_eval.__file__).with_name("tasks") / "gsm8k" / "gsm8k.yaml"
    task = yaml.safe_load(file.read_text())
    ignored = task["metric_list"][0]["regexes_to_ignore"]
    graders = {"strict-match": strict_match, "flexible-extract": flexible_extract}
    for entry in task["filter_list"]:
        options = {name: value for name, value in entry["filter"][0].items() if name != "function"}
        for text, gold, *_ in CASES:
            ((read,),) = RegexFilter(**options).apply([[text]], [{}])
            exact = exact_match_hf_evaluate([read], [f"So.\n#### {gold}"], regexes_to_ignore=ignored, ignore_case=True)
            ours = graders[entry["name"]](pair(text, gold))
            assert (ours.read or "[invalid]", ours.correct) == (read, bool(exact["exact_match"]))
