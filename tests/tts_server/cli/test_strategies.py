"""`tts-server strategies`: of this installation, and of a server."""

import asyncio
import re

import pytest
from serving import serving
from typer.testing import CliRunner, Result

import strategies
from tts_server.cli import main as cli


def run(*arguments: str, columns: int | None = 1000) -> Result:
    return CliRunner(env={"COLUMNS": None if columns is None else str(columns)}).invoke(
        cli.app, ["strategies", *arguments]
    )


def from_server(*arguments: str) -> Result:
    async def main() -> Result:
        async with serving() as client:
            return await asyncio.to_thread(run, *arguments, "--url", f"{client.base_url}/v1")

    return asyncio.run(main())


def row(result: Result, name: str) -> list[str]:
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_every_one_is_listed_with_its_options() -> None:
    result = run()
    assert result.exit_code == 0
    for name, entry in strategies.registry().items():
        told = " ".join(row(result, name))
        assert entry.description in told
        assert all(option in told for option in entry.options.model_fields)


def test_a_pipe_has_a_whole_line_for_each() -> None:
    names = list(strategies.registry())
    result = run(columns=None)
    assert all(strategies.registry()[name].description in " ".join(row(result, name)) for name in names)


def test_one_is_shown_with_types_defaults_and_bounds() -> None:
    result = run("self_consistency")
    assert result.exit_code == 0
    options = dict(re.findall(r"^ (\w+) +(.+?) *\n +\w", result.stdout, re.MULTILINE))
    assert options["n"] == "integer, default 8; at least 1, at most 4096"
    assert options["stopping"] == 'string, default "none"; none, beta, esc'
    assert options["parallel"] == "integer or null, default null; at least 1, at most 4096"
    assert re.search(r"^ +Samples to draw\. *$", result.stdout, re.MULTILINE)
    assert re.search(r"^Example: ", result.stdout, re.MULTILINE)
    assert re.search(r"^ question +string, required; any *$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", strategies.registry())
def test_each_can_be_shown_on_a_narrow_terminal(name: str) -> None:
    result = run(name, columns=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_server_says_the_same() -> None:
    assert from_server().stdout == run().stdout
    assert from_server("best_of_n").stdout == run("best_of_n").stdout


def test_one_that_is_unknown_is_one_sentence() -> None:
    result = run("best")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown strategy 'best'; known: ab_mcts, beam_search")
    assert result.stderr.count("\n") == 1
