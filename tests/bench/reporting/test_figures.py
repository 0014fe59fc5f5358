"""Figures as a person reads them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.reporting.cost import Cost, Quantiles
from bench.reporting.figures import accuracy, figures, span
from bench.stored.manifest import Manifest, Server, Session, Settings, write_manifest
from bench.stored.records import Record, RecordWriter, Usage

NOTHING = Cost(1, None, None, None, None, None, None, None, None, None, None, None, None)


def test_a_person_reads_the_figures_that_are_known() -> None:
    latency = Quantiles(1.0, 0.9, 1.8)
    assert figures(Cost(3, 600, 30, 90, 21, 12, 50.0, 0.06, 12.0, latency, None, 6.51e11, 0.5)) == {
        "generated": "600 tokens, 200 a problem",
        "prompts": "30 tokens computed, 90 more from the cache",
        "reward model": "21 tokens",
        "wall time": "50 s, 0.06 problems/s",
        "throughput": "12 generated tokens/s",
        "latency": "mean 1.00 s, p50 0.90 s, p95 1.80 s",
        "compute": "about 6.5e+11 FLOPs",
        "price": "$0.5000",
    }
    assert figures(NOTHING) == {}


def test_accuracy_has_wilsons_interval() -> None:
    assert accuracy(0, 0) == "accuracy ?"
    assert accuracy(5, 20) == "accuracy 25.0 % (11.2 to 46.9)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (4810, "80 min"), (6000, "1 h 40 min")]
)
def test_times_are_told_as_a_person_does(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_command_tells_each_runs_cost(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"completion": 2e6}))
    for name in ("one", "two"):
        with RecordWriter(tmp_path / name) as writer:
            usage = Usage(completion_tokens=5, engine_prompt_tokens=5, cached_prompt_tokens=0)
            writer.append(Record(id="1", gold="1", samples=(), correct=True, usage=usage))
    session = Session("2026-01-01T00:00:00+00:00", "u", "c", None, "m", "v", "2026-01-01T00:00:10+00:00", 1)
    settings = Settings("t", "test", "f", "0", "boxed", (), "m")
    write_manifest(tmp_path / "two", Manifest(settings, Server(), sessions=(session,)))
    arguments = [str(tmp_path / "one"), str(tmp_path / "two"), "--prices", str(prices), "--parameters", "1e6"]
    result = CliRunner().invoke(app, ["cost", *arguments])
    assert result.exit_code == 0
    one, two = result.output.split(str(tmp_path / "two"))
    for told in (one, two):
        assert "100.0 % (20.7 to 100.0)" in told
        assert "$10.0000" in told
        assert "about 2e+07 FLOPs" in told
    assert "wall time" not in one
    assert "10 s, 0.10 problems/s" in two


def test_a_run_or_price_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cost", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "none: cannot be read: No such file or directory" in result.output
    result = CliRunner().invoke(app, ["cost", str(tmp_path), "--prices", str(tmp_path / "prices.json")])
    assert result.exit_code == 1
    assert "prices.json: cannot be read" in result.output
