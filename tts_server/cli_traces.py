"""`tts-server traces`: the records of searches, read from the data directory of this machine."""

import sqlite3
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table

from tts_server.config import ConfigError, load
from tts_server.traces import feedback, view
from tts_server.traces.file import FILE, Reader

app = typer.Typer(no_args_is_help=True, help="The records of searches that a server of this machine keeps.")
err = Console(stderr=True)

DataDir = Annotated[Path | None, typer.Option(help="The server's data directory, if it is not the configured one.")]
Config = Annotated[Path | None, typer.Option(help="The server's TOML file.")]
Strategy = Annotated[str | None, typer.Option(help="Only searches of this strategy.")]


@app.command("list")
def list_traces(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    strategy: Strategy = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Lists the newest searches: when, how, and what they cost."""
    whole = [Column(name, no_wrap=True) for name in ("id", "when", "strategy", "status")]
    table = Table(*whole, "samples", "tokens", "scored", "s", box=None)
    try:
        for stored in Reader(_file(data_dir, config)).page(None, limit, strategy=strategy):
            head = orjson.loads(stored.head)
            usage = head["usage"]
            when = f"{datetime.fromtimestamp(head['created'], UTC):%Y-%m-%d %H:%MZ}"
            cost = (usage["samples"], usage["completion_tokens"], usage["prm_tokens"], round(head["duration_s"], 2))
            table.add_row(head["id"], when, head["strategy"], head["status"], *map(str, cost))
    except (ConfigError, sqlite3.Error) as error:
        raise _failed(error) from None
    console = Console()
    # A trace is asked for by its whole id, also where the lines are longer than the terminal is wide.
    console.print(table, width=max(console.width, 120), soft_wrap=True)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output if not given.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many, the newest first; all if not given.")] = None,
    strategy: Strategy = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Writes whole records as JSONL, the newest first, of every API key."""
    count = 0
    try:
        path = _file(data_dir, config)
        pages = Reader(path).pages(None, limit, strategy=strategy)
        with ExitStack() as stack:
            sink = stack.enter_context(out.open("wb")) if out else sys.stdout.buffer
            for page in pages:
                said = feedback.of(path, [stored.id for stored in page])
                for stored in page:
                    sink.write(view.line(stored.head, stored.body, said.get(stored.id)))
                    count += 1
    except (ConfigError, sqlite3.Error, OSError) as error:
        raise _failed(error) from None
    if out:
        err.print(f"{count} traces are in {out}", soft_wrap=True, highlight=False, markup=False)


def _file(data_dir: Path | None, config: Path | None) -> Path:
    path = load(config, data_dir=data_dir).data_dir / FILE
    if not path.exists():
        raise ConfigError(f"data_dir: there are no traces at {path}")
    return path


def _failed(error: Exception) -> typer.Exit:
    err.print(f"error: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
    return typer.Exit(1)
