"""`tts-server traces`: the records of searches, read from the data directory of this machine."""

import sqlite3
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tts_server.cli.terminal import err, fail

if TYPE_CHECKING:
    from tts_server.observe.traces.database import Listed

app = typer.Typer(no_args_is_help=True, help="The records of searches that a server of this machine keeps.")

DataDir = Annotated[Path | None, typer.Option(help="The server's data directory, if it is not the configured one.")]
Config = Annotated[Path | None, typer.Option(help="The server's TOML file.")]
Strategy = Annotated[str | None, typer.Option(help="Only searches of this strategy.")]
HEADINGS = ("id", "when", "strategy", "status", "samples", "tokens", "scored", "s")
WORDS = 4
"""The first columns are words, the others numbers."""
PIPE_COLUMNS = 200


@app.command("list")
def list_traces(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    strategy: Strategy = None,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line, as GET /v1/traces has them.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Lists the newest searches: when, how, and what they cost."""
    from tts_server.config import ConfigError  # noqa: PLC0415
    from tts_server.observe.traces.database import Reader  # noqa: PLC0415

    try:
        page = Reader(_file(data_dir, config)).page(None, limit, strategy=strategy)
    except (ConfigError, sqlite3.Error) as error:
        raise fail(error) from None
    if as_json:
        for stored in page:
            typer.echo(stored.head)
    else:
        for line in _lines([_cells(stored) for stored in page]):
            typer.echo(line)


def _cells(stored: "Listed") -> tuple[str, ...]:
    import orjson  # noqa: PLC0415

    head = orjson.loads(stored.head)
    usage = head["usage"]
    when = f"{datetime.fromtimestamp(head['created'], UTC):%Y-%m-%d %H:%MZ}"
    cost = (usage["samples"], usage["completion_tokens"], usage["prm_tokens"])
    return (head["id"], when, head["strategy"], head["status"], *map(str, cost), f"{head['duration_s']:.2f}")


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    """A table whose cells are whole; where a line is too long for the terminal, costs stand below their trace."""
    table = [HEADINGS, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    cells = [
        [cell.ljust(width) if i < WORDS else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]  # noqa: B905
        for row in table
    ]
    console = Console()
    if not console.is_terminal or sum(widths) + 2 * len(widths) <= console.width:
        return ["  ".join(row).rstrip() for row in cells]
    halves = [(row[:2], row[2:]) for row in cells]
    return [line for first, second in halves for line in ("  ".join(first).rstrip(), "  " + "  ".join(second))]


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="The trace_id of an answer.")],  # noqa: A002  its name in the API
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as GET /v1/traces/{id} has it.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Draws one search as a tree: what was tried, what it was worth, and what became of it."""
    import orjson  # noqa: PLC0415

    from tts_server.config import ConfigError  # noqa: PLC0415
    from tts_server.observe.traces import feedback, view  # noqa: PLC0415
    from tts_server.observe.traces.database import Reader  # noqa: PLC0415
    from tts_server.observe.traces.tree import tree, width  # noqa: PLC0415

    try:
        path = _file(data_dir, config)
        stored = Reader(path).get(id, None)
        if stored is None:
            raise fail(f"there is no trace {id!r} at {path}; `tts-server traces list` shows what there is")
        trace: dict[str, Any] = view.shown(stored.head, stored.body, feedback.of(path, [id]).get(id))
    except (ConfigError, sqlite3.Error) as error:
        raise fail(error) from None
    if as_json:
        typer.echo(orjson.dumps(trace))
    else:
        console = Console()
        columns = console.width if console.is_terminal else PIPE_COLUMNS
        console.print(tree(trace), highlight=False, width=width(trace, columns), crop=False)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output if not given.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many, the newest first; all if not given.")] = None,
    strategy: Strategy = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Writes whole records as JSONL, the newest first, of every API key."""
    from strategies.core.plain_words import sentence  # noqa: PLC0415
    from tts_server.config import ConfigError  # noqa: PLC0415
    from tts_server.observe.traces import feedback, view  # noqa: PLC0415
    from tts_server.observe.traces.database import Reader  # noqa: PLC0415

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
        raise fail(sentence(error)) from None
    if out:
        err.print(f"{count} traces are in {out}", soft_wrap=True, highlight=False, markup=False)


def _file(data_dir: Path | None, config: Path | None) -> Path:
    from tts_server.config import ConfigError, load  # noqa: PLC0415
    from tts_server.observe.traces.database import FILE  # noqa: PLC0415

    path = load(config, data_dir=data_dir).data_dir / FILE
    if not path.exists():
        raise ConfigError(f"data_dir: there are no traces at {path}")
    return path
