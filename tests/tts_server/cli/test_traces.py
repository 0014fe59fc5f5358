"""`tts-server traces`: records on this machine, without a server."""

import time
from pathlib import Path

import orjson
import pytest
from tracing import record_of
from typer.testing import CliRunner

from tts_server.cli.main import app
from tts_server.observe.traces.database import FILE, Writer
from tts_server.observe.traces.render import row

RUNNER = CliRunner()
LONG = f"trace-{2:032x}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """With three traces of two owners."""
    writer = Writer(tmp_path / FILE, 2**20, 3600)
    now = time.time()
    for i, (strategy, owner) in enumerate((("single", "ada"), ("best_of_n", "bob"), ("single", "bob"))):
        writer.add([row(record_of(strategy, id=f"trace-{i}" if i < 2 else LONG, owner=owner, created=now), "full")])
    writer.close()
    return tmp_path


def test_everything_is_exported_as_jsonl(data_dir: Path) -> None:
    done = RUNNER.invoke(app, ["traces", "export", "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == [LONG, "trace-1", "trace-0"]
    assert lines[1]["calls"][0]["samples"][0]["text"]


def test_some_are_exported_to_a_file(data_dir: Path) -> None:
    out = data_dir / "out.jsonl"
    options = ["--out", str(out), "--strategy", "single", "--limit", "1", "--data-dir", str(data_dir)]
    done = RUNNER.invoke(app, ["traces", "export", *options])
    assert done.exit_code == 0, done.output
    assert [orjson.loads(line)["id"] for line in out.read_text().splitlines()] == [LONG]


def test_the_newest_are_listed(data_dir: Path) -> None:
    done = RUNNER.invoke(app, ["traces", "list", "--limit", "2", "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output
    assert LONG in done.stdout
    assert "trace-1 " in done.stdout
    assert "trace-0 " not in done.stdout
    assert "best_of_n" in done.stdout


@pytest.mark.parametrize("command", ["list", "export"])
def test_where_there_are_none_one_sentence_says_so(tmp_path: Path, command: str) -> None:
    done = RUNNER.invoke(app, ["traces", command, "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "there are no traces" in done.output


@pytest.mark.parametrize("command", ["list", "export"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, command: str) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    done = RUNNER.invoke(app, ["traces", command, "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "not a database" in done.output


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_a_list_has_whole_ids_and_costs_however_narrow_it_is(data_dir: Path, columns: str) -> None:
    done = RUNNER.invoke(app, ["traces", "list", "--data-dir", str(data_dir)], env={"COLUMNS": columns})
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{LONG} ")]
    told = orjson.loads(
        RUNNER.invoke(app, ["traces", "list", "--json", "--limit", "1", "--data-dir", str(data_dir)]).stdout
    )
    usage = told["usage"]
    costs = [usage["samples"], usage["completion_tokens"], usage["prm_tokens"], f"{told['duration_s']:.2f}"]
    assert line.split()[-4:] == list(map(str, costs))
    assert "…" not in done.stdout


def test_on_a_narrow_terminal_costs_stand_below(data_dir: Path) -> None:
    environment = {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}
    done = RUNNER.invoke(app, ["traces", "list", "--data-dir", str(data_dir)], env=environment)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == 8
    (place,) = [i for i, line in enumerate(lines) if line.startswith(LONG)]
    assert lines[place + 1].split()[0] == "single"
    assert lines[1].split() == ["strategy", "status", "samples", "tokens", "scored", "s"]


def test_as_json_a_list_has_an_object_a_line(data_dir: Path) -> None:
    done = RUNNER.invoke(app, ["traces", "list", "--json", "--data-dir", str(data_dir)])
    assert [orjson.loads(line)["id"] for line in done.stdout.splitlines()] == [LONG, "trace-1", "trace-0"]


def test_one_is_drawn_or_written_whole(data_dir: Path) -> None:
    done = RUNNER.invoke(app, ["traces", "show", "trace-1", "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("trace-1: best_of_n, done\n4 samples, ")
    assert done.stdout.count("── ") == 4
    done = RUNNER.invoke(app, ["traces", "show", "trace-1", "--json", "--data-dir", str(data_dir)])
    told = orjson.loads(done.stdout)
    assert (told["id"], len(told["calls"][0]["samples"])) == ("trace-1", 4)


def test_one_that_is_not_there_is_one_sentence(data_dir: Path) -> None:
    done = RUNNER.invoke(app, ["traces", "show", "trace-9", "--data-dir", str(data_dir)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: there is no trace 'trace-9' at ")
