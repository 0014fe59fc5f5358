"""`tts-bench` as its users run it: in a process of its own, also one that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import NEVER_S
from served import served
from typer.testing import CliRunner

from bench.cli import COMMANDS, app
from bench.stored.manifest import read_manifest
from bench.stored.records import RECORDS, read_records

QUESTIONS = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(30)]
ENV = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake", "--log-level", "warning") as (base, _):
        yield base


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return file


def tts_bench(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=NEVER_S, env=ENV, check=False)


def test_a_run_is_repeated_from_its_manifest_alone(url: str, task: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    done = tts_bench(
        "run", "--task", task, "--strategy", "self_consistency", "--n", 3, "-o", 'budget={"max_tokens": 5000}',
        "--prompt", "steps", "--temperature", 0.5, "--field", "top_p=0.9", "--seed", 7, "--limit", 5, "--offset", 2,
        "--concurrency", 3, "--url", url, "--api-key", "sk-secret", "--out", first, "--parameters", "5e8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "5 " in done.stdout
    assert "FLOPs" in done.stdout
    manifest = read_manifest(first)
    assert manifest is not None
    assert manifest.settings.options == {"n": 3, "budget": {"max_tokens": 5000}}
    assert manifest.settings.sampling == {"temperature": 0.5, "max_tokens": 1024, "seed": 7, "top_p": 0.9}
    assert "sk-secret" not in (first / "manifest.json").read_text()
    done = tts_bench("repeat", first, "--url", url, "--out", again)
    assert done.returncode == 0, done.stderr
    repeated = read_manifest(again)
    assert repeated is not None
    assert (repeated.settings, repeated.limit) == (manifest.settings, 5)
    texts = [{r.id: [s.text for s in r.samples] for r in read_records(run)} for run in (first, again)]
    assert texts[0] == texts[1]
    assert list(texts[0]) != []
    task.write_text(json.dumps(QUESTIONS[0]) + "\n")
    done = tts_bench("repeat", first, "--url", url, "--out", tmp_path / "other")
    assert done.returncode == 1
    assert "no problem is left" in done.stderr or "SHA-256" in done.stderr


def test_a_run_that_is_killed_is_resumed_without_asking_again(task: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = ["run", "--task", task, "--strategy", "best_of_n", "--n", 2, "--concurrency", 2, "--out", out]
    with served("--engine", "fake", "--prm", "fake", "--log-level", "info") as (url, _):
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *map(str, run), "--url", url],
            env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        until = time.monotonic() + NEVER_S
        while time.monotonic() < until and not ((out / RECORDS).exists() and (out / RECORDS).stat().st_size > 2000):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with (out / RECORDS).open("ab") as file:
            file.write(b'{"id": "torn')
        before = [record.id for record in read_records(out)]
        assert before
        done = tts_bench(*run, "--url", url, "--resume")
    assert done.returncode == 0, done.stderr
    assert "its last line was torn and is cut off" in done.stderr
    after = [record.id for record in read_records(out)]
    assert after[: len(before)] == before
    assert len(after) == len(QUESTIONS)
    manifest = read_manifest(out)
    assert manifest is not None
    killed, resumed = manifest.sessions
    assert (killed.ended, resumed.records) == (None, len(QUESTIONS) - len(before))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "gsm9k"], "there is no task 'gsm9k'"),
        (["--task", "{task}", "--limit", "0"], "'--limit': "),
        (["--task", "{task}", "--prompt", "poem"], "there is no prompt 'poem'; there are boxed, "),
        (["--task", "{task}", "-o", "n"], "--option: is written name=value, got 'n'"),
        (["--task", "{task}", "--strategy", "best_of_n", "--n", "2", "-o", "n=3"], "--n: n is given twice"),
        (["--task", "{task}", "-o", "n=3", "-o", "n=4"], "--option: n is given twice"),
        (["--task", "{task}", "-o", "strategy=single"], "--option: strategy has an option of its own"),
        (["--task", "{task}", "--field", "tts=1"], "--field: tts has an option of its own"),
        (["--task", "{task}", "--url", "localhost:8000"], "base_url is an http or https URL"),
        (["--task", "{task}", "--url", "http://127.0.0.1:9"], "no server answers at http://127.0.0.1:9"),
        (["--task", "{task}", "--offset", "30"], "no problem is left"),
    ],
)
def test_what_is_wrong_is_named(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    given = [argument.format(task=task) for argument in arguments]
    result = CliRunner().invoke(app, ["run", "--out", str(tmp_path / "out"), *given])
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_a_wrong_line_of_a_task_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"question": "a", "answer": "1"}\n{"question": "b"}\n')
    result = CliRunner().invoke(app, ["run", "--task", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "bad.jsonl:2: " in result.output.replace("\n", "")


def test_a_manifest_to_repeat_has_to_be_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["repeat", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "has no manifest" in result.output


def test_the_help_loads_no_command() -> None:
    code = "import sys; from bench.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('numpy', 'matplotlib', 'torch', 'httpx') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=True)
    assert done.stdout.rstrip().endswith("[]")
    for name, (_, line) in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert line in done.stdout
