"""A comparison from end to end, on a few pairs of each kind."""

import asyncio
import json
from pathlib import Path

import pytest

from bench.grading.agreement import (
    BEGIN,
    END,
    GraderComparison,
    compare,
    differences,
    main,
    own_errors,
    replaced,
    summary,
)
from bench.grading.grade import Grade
from bench.grading.outside_graders import Verdict
from bench.grading.pairs import Pair
from bench.tasks import registry

PAIRS = [
    Pair("gsm8k", "gold solution", "9 * 2 = 18\n#### 18", "18", True),
    Pair("gsm8k", "decimals", "#### 18.00", "18", True),
    Pair("gsm8k", "offer", "The answer is 18. Want 1 more?", "18", True),
    Pair("math500", "boxed", r"So $\boxed{\frac12}$.", r"\frac{1}{2}", True),
    Pair("records", "model's output", "The answer is 18", "18", None, truncated=True),
]


def found(grader: str) -> list[GraderComparison]:
    return [comparison for comparison in asyncio.run(compare(PAIRS)) if comparison.grader == grader]


def test_graders_of_numbers_do_not_see_latex() -> None:
    assert [comparison.pair.data for comparison in found("lm-eval strict-match")] == ["gsm8k"] * 3 + ["records"]
    assert len(found("math-verify")) == len(PAIRS)


def test_every_difference_has_its_cause() -> None:
    causes = [comparison.cause for comparison in found("lm-eval flexible-extract") if not comparison.agrees]
    assert causes == ["both read the same and compare otherwise", "it reads another answer", "we read no answer"]
    causes = [comparison.cause for comparison in found("lm-eval strict-match") if not comparison.agrees]
    assert causes == ["both read the same and compare otherwise", "it reads no answer"]


def test_the_summary_counts_who_is_right() -> None:
    rows = list(summary(asyncio.run(compare(PAIRS))))
    assert rows[2] == "| lm-eval strict-match | 4 | 50.00 % (2) | 3 | 100.00 % (3) | 33.33 % (1) |"
    assert rows[3] == "| lm-eval flexible-extract | 4 | 25.00 % (1) | 3 | 100.00 % (3) | 33.33 % (1) |"


def test_a_difference_is_shown_with_its_example_and_who_is_right() -> None:
    table = "\n".join(differences(asyncio.run(compare(PAIRS))))
    assert "| both read the same and compare otherwise | gsm8k: decimals | 1 | 1 | 0 | `#### 18.00` | `18` |" in table
    assert (
        "| we read no answer | records: model's output | 1 | ? | ? | `The answer is 18` | `18` | nothing | `18` |"
        in table
    )


def test_own_errors_are_listed() -> None:
    wrong = GraderComparison("g", PAIRS[1], Grade("18.00", False), Verdict("18.00", True), True)
    lines = list(own_errors([wrong, *found("math-verify")]))
    assert lines[0] == "1 of the pairs with a known verdict are graded wrong by us."
    assert lines[-1] == "| gsm8k: decimals | right | `#### 18.00` | `18` | `18.00` |"


def test_only_the_measured_part_of_a_page_is_replaced() -> None:
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
    with pytest.raises(ValueError, match="the page needs the lines"):
        replaced("a\n", "new")


def test_a_page_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"{n}?", "answer": f"So it is <<{n}={n}>>{n}.\n#### {n}"} for n in range(10, 20)]
    (tmp_path / registry()["gsm8k"].files["test"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    solved = [
        {"problem": f"{n}?", "solution": f"So $\\boxed{{{gold}}}$.", "answer": gold, "level": 1, "subject": f"S{n % 3}"}
        for n, gold in enumerate(["1", "2", r"\frac{1}{3}", r"(1,\sqrt{2},3)", r"x^2+3x-17", r"\text{Monday}"])
    ]
    (tmp_path / "math500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in solved))
    record = {"gold": "5", "samples": [{"text": "The answer is 5."}]}
    (tmp_path / "records.jsonl").write_text(json.dumps(record) + "\n")
    page, differing = tmp_path / "page.md", tmp_path / "differing.jsonl"
    page.write_text(f"# Grading\n{BEGIN}\n{END}\n")
    main(tmp_path, each=2, records=[tmp_path / "records.jsonl"], out=page, differing=differing)
    measured = page.read_text()
    assert "lm-eval strict-match" in capsys.readouterr().out
    assert "| math-verify |" in measured
    assert "- gold solutions of math500 graded right against their own gold answers: 6 of 6" in measured
    assert "0 of the pairs with a known verdict are graded wrong by us." in measured
    assert {"grader", "cause", "text", "gold"} <= set(json.loads(differing.read_text().splitlines()[0]))
