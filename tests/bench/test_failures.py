"""Whatever `tts-bench` is given, it ends in a sentence and an exit code."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.cli import app

GOOD = '{"id": "a", "gold": "1", "correct": true, "samples": [{"text": "It is 1.", "answer": "1"}]}\n'
FILES = {
    "empty": "",
    "half": '{"id": "a", "gold": ',
    "list": "[1, 2]\n",
    "nulls": '{"id": null, "gold": null, "samples": null}\n',
    "wrong": '{"gold": 1, "samples": 3}\n',
    "binary": "\xff\xfe\xfa",
    "deep": "[" * 5000,
}
"""What a file may hold that is no record, no task and no table of prices."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of files and runs that are none, in which the command runs."""
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        (tmp_path / f"run-{name}").mkdir()
        (tmp_path / f"run-{name}" / "records.jsonl").write_text(GOOD)
        (tmp_path / f"run-{name}" / "manifest.json").write_bytes(text.encode("latin-1"))
    (tmp_path / "good.jsonl").write_text(GOOD)
    (tmp_path / "task.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    (tmp_path / "directory").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def check(done: Result, arguments: Sequence[str]) -> None:
    assert done.exit_code in (1, 2), arguments
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
    assert re.search(r"error: \S|Invalid value|Missing|No such|Error", done.output), (arguments, done.output)
    assert "Traceback" not in done.output


READERS = (
    ("rescore",),
    ("rescore", "good.jsonl", "--against"),
    ("report", "--out", "o"),
    ("cost",),
    ("cost", "good.jsonl", "--prices"),
    ("compare", "good.jsonl"),
    ("calibrate", "--out", "p.json"),
    ("run", "--url", "http://127.0.0.1:9", "--out", "o", "--task"),
    ("repeat", "--out", "o"),
    ("prm-data", "--url", "http://127.0.0.1:9", "--out", "o", "--task"),
    ("prm-train", "--base", "directory", "--out", "o", "--labels"),
)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_file_that_is_none_is_named(command: tuple[str, ...], place: Path) -> None:
    for name in ("missing", "directory", *FILES, *(f"run-{name}" for name in FILES)):
        arguments = (*command, name)
        done = said(*arguments)
        check(done, arguments)
        assert name in done.output.replace("\n", ""), (arguments, done.output)


@pytest.mark.parametrize(
    "line",
    [
        "simulate --out o --only nothing",
        "simulate --out o --questions 0",
        "simulate --out o --top 0",
        "simulate --out o --processes 0",
        "simulate --out good.jsonl/o --questions 1",
        "rescore good.jsonl --k 0",
        "rescore good.jsonl --k 9",
        "rescore good.jsonl --selector nothing",
        "rescore good.jsonl --out o.txt",
        "rescore good.jsonl --out missing/o.json",
        "rescore good.jsonl --out directory",
        "report good.jsonl --out good.jsonl",
        "report good.jsonl good.jsonl --out o",
        "run --task task.jsonl --out o --url nonsense",
        "run --task task.jsonl --out o --url http://127.0.0.1:99999",
        "run --task task.jsonl --out o --url http://[::1",
        "run --task task.jsonl --out o --option x",
        "run --task gsm8k --data missing --out o",
        "calibrate good.jsonl --out p.json --edges a",
        "load --requests 0",
        "load --out missing/o.md",
        "prm-train --labels missing --base b --out o --report missing/o.md",
        "nothing",
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_computed(line: str, place: Path) -> None:
    check(said(*line.split()), line.split())


def test_a_strategy_s_name_runs_its_contestants_alone(place: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    arguments = "simulate --out o --only self_consistency --questions 2 --top 4 --processes 1"
    done = said(*arguments.split())
    assert done.exit_code == 0, (done.output, done.exception)
    assert (place / "o" / "simulate.md").exists()
