"""The page on what the allocation is worth: the toy world and records, from the command line."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from bench.stored.manifest import Manifest, Server, Settings, write_manifest
from bench.stored.records import RECORDS
from bench.studies.compute_optimal import main

SMALL = ("--world", "plain", "--questions", "30", "--calibration", "30")


def measured(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def pool(path: Path, n: int = 8) -> Path:
    """24 problems, half of them easy; the reward model tells right from wrong."""
    draw = random.Random(0)
    path.mkdir()
    lines = []
    for number in range(24):
        right = [draw.random() < (0.85 if number % 2 else 0.15) for _ in range(n)]
        samples: list[dict[str, Any]] = [
            {
                "text": f"\\boxed{{{1 if good else draw.randint(2, 5)}}}",
                "step_scores": [0.9 if good else 0.1],
                "score": 0.9 if good else 0.1,
                "completion_tokens": 10,
                "finish_reason": "stop",
            }
            for good in right
        ]
        usage = {"completion_tokens": 10 * n, "prm_tokens": 5 * n}
        lines.append(json.dumps({"id": str(number), "gold": "1", "samples": samples, "usage": usage}))
    (path / RECORDS).write_text("\n".join(lines) + "\n")
    turn = ({"role": "user", "content": "{question}"},)
    settings = Settings("t", "test", "t", "0", "p", turn, "m", "best_of_n", {"n": n})
    write_manifest(path, Manifest(settings, Server(prm="judge")))
    return path


def test_the_page_tells_of_the_toy_world_and_of_records_with_and_without_scores(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    done = measured(*SMALL, "--runs", pool(tmp_path / "pool"), "--out", out)
    assert done.exit_code == 0, done.output
    heads = [line for line in out.read_text().splitlines() if line.startswith("## ")]
    assert [head.split(",")[-1].strip() for head in heads[1:]] == ["without the reward model", "with the reward model"]
    assert heads[0].startswith("## In the toy world, where the length")
    assert "paired bootstrap" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--world", "real"), "one of plain, hidden, got 'real'"), ((*SMALL, "--runs", "none"), "none")],
)
def test_what_is_wrong_is_said(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = measured(*arguments, "--out", tmp_path / "page.md")
    assert done.exit_code != 0
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "page.md").exists()
