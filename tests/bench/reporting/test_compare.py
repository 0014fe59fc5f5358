"""Logs of other harnesses, as they write them, beside a run of ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.reporting.compare import LoggedGrade, compared, read_log
from bench.stored.records import Record, RecordError, RecordWriter, SampleRecord

TEXTS = {"What is 1 + 1?": "So \\boxed{2}.", "What is  2 + 2?": "It is 4, from 1 | 3", "What is 3 + 3?": "Six"}


def record(number: int, question: str, answer: str | None, correct: bool, text: str | None = None) -> Record:
    sample = SampleRecord(text=TEXTS[question] if text is None else text, answer=answer)
    return Record(
        id=f"test/{number}", question=question, gold="2", samples=(sample,), answer=answer, correct=correct, chosen=0
    )


RECORDS = [
    record(0, "What is 1 + 1?", "2", True),
    record(1, "What is  2 + 2?", "4", True),
    record(2, "What is 3 + 3?", None, False, "Nine"),
    Record(id="test/3", question="What is 4 + 4?", gold="8", samples=(), correct=False, error="too long"),
]


def lm_eval_line(question: str, filter_: str, answer: str, correct: bool) -> str:
    told = {
        "doc_id": 0,
        "doc": {"question": question, "answer": "#### 2"},
        "target": "2",
        "resps": [[TEXTS[question]]],
        "filtered_resps": [answer],
        "filter": filter_,
        "metrics": ["exact_match"],
        "exact_match": 1.0 if correct else 0.0,
    }
    return json.dumps(told) + "\n"


@pytest.fixture
def lm_eval(tmp_path: Path) -> Path:
    file = tmp_path / "samples_gsm8k.jsonl"
    lines = [lm_eval_line(question, "strict", "2", True) for question in TEXTS]
    lines += [lm_eval_line(question, "flexible", "3", i == 0) for i, question in enumerate(TEXTS)]
    file.write_text("".join(lines))
    return file


def inspect_log(content: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    scores = {"match": {"value": "C", "answer": "2"}, "pattern": {"value": "I", "answer": None}}
    sample = {"id": 1, "input": "What is 1 + 1?", "target": "2", "output": {"choices": [{"message": message}]}}
    return {"version": 2, "status": "success", "samples": [{**sample, "scores": scores}]}


def test_each_filter_of_lm_eval_is_a_grader(lm_eval: Path) -> None:
    log = read_log(lm_eval)
    assert list(log) == ["strict", "flexible"]
    assert log["flexible"][1] == LoggedGrade("What is  2 + 2?", "It is 4, from 1 | 3", "3", False)


@pytest.mark.parametrize(
    "content", ["So 2.", [{"type": "reasoning", "reasoning": "Hm"}, {"type": "text", "text": "So 2."}]]
)
def test_each_scorer_of_inspect_is_a_grader(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "log.json"
    file.write_text(json.dumps(inspect_log(content)))
    question = "What is 1 + 1?"
    assert read_log(file) == {
        "match": [LoggedGrade(question, "So 2.", "2", True)],
        "pattern": [LoggedGrade(question, "So 2.", "None", False)],
    }


def test_every_problem_with_another_grade_is_told_with_its_cause(lm_eval: Path) -> None:
    lines = list(compared(RECORDS, read_log(lm_eval)))
    assert lines[2] == "| strict | 3 | 66.7 (20.8 to 93.9) | 100.0 (43.9 to 100.0) | 2 | 2 |"
    assert lines[3] == "| flexible | 3 | 66.7 (20.8 to 93.9) | 33.3 (6.1 to 79.2) | 2 | 2 |"
    rows = [line for line in lines if line.startswith("| test/")]
    assert rows == [
        "| test/2 | 2 | wrong | right | the texts differ | Nine |",
        "| test/1 | 2 | right | wrong | the same text is read as '4' by us, as '3' by them | It is 4, from 1 \\| 3 |",
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"doc": 1}\n', "is neither a sample log of lm-evaluation-harness nor"),
        ("a.jsonl", '{"doc": 1', "a.jsonl:1: "),
        ("a.jsonl", "\n", "there are no samples in it"),
        ("a.json", '{"samples": [{"scores": {}}]}', "KeyError: 'output'"),
        ("a.json", "[]", "is neither a sample log"),
        ("a.json", "{", "is neither a sample log"),
    ],
)
def test_a_file_that_is_no_log_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=name) as error:
        read_log(tmp_path / name)
    assert said in str(error.value)


def test_a_log_in_inspects_binary_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "log.eval").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(RecordError, match="--log-format json"):
        read_log(tmp_path / "log.eval")


def test_a_log_of_other_problems_is_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    file.write_text(json.dumps(inspect_log("2")))
    with pytest.raises(RecordError, match="no problem in common"):
        list(compared(RECORDS[1:], read_log(file)))


def test_the_command_prints_and_writes_the_page(tmp_path: Path, lm_eval: Path) -> None:
    with RecordWriter(tmp_path / "run") as writer:
        for each in RECORDS:
            writer.append(each)
    out = tmp_path / "page.md"
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "run"), str(lm_eval), "--out", str(out)])
    assert result.exit_code == 0
    assert "| strict | 3 |" in result.output
    assert out.read_text() == result.output
    result = CliRunner().invoke(app, ["compare", str(tmp_path), str(lm_eval)])
    assert result.exit_code == 1
    assert "cannot be read" in result.output
