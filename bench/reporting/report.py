"""Runs compared: one self-contained page, its pictures, and its tables in Markdown.

    tts-bench report runs/* --out report/

Works on records alone. The page loads nothing and runs no script; what models wrote is text on it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.failures import fail
from bench.reporting.cards import dispute
from bench.reporting.cost import read_prices
from bench.reporting.data import Run, disputed, read_runs
from bench.reporting.plots import COLOURS
from bench.reporting.sections import Findings, findings
from bench.stats.tables import show, terminal
from bench.stored.records import RecordError

IN_SHORT = ("run", "accuracy, %", "95 % interval", "generated tokens", "seconds", "frontier")
"""Columns that a terminal has room for."""


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Directories of runs of one task.")],
    out: Annotated[Path, typer.Option(help="Directory for index.html, report.md and the pictures.")],
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Accuracy against compute",
    problems: Annotated[int, typer.Option(min=0, help="Problems shown of those on which runs differ.")] = 40,
    prices: Annotated[Path | None, typer.Option(help="A JSON table of prices, for dollars.")] = None,
    parameters: Annotated[float | None, typer.Option(min=1, help="Weights of the model, for FLOPs.")] = None,
    prm_parameters: Annotated[float | None, typer.Option(min=1, help="Weights of the reward model.")] = None,
) -> None:
    """Writes a page, tables and pictures of runs."""
    try:
        found = read_runs(
            runs,
            prices=read_prices(prices) if prices else None,
            parameters=parameters,
            prm_parameters=prm_parameters,
        )
        told = findings(found)
        write(out, title, found, told, problems)
    except (RecordError, OSError, RuntimeError) as error:
        raise fail(error) from None
    console = terminal()
    for sentence in told.conclusion:
        console.print(sentence, markup=False, highlight=False)
    for part in told.parts[:1]:
        show(console, part.title, part.sheet.only(IN_SHORT))
        for note in part.notes:
            console.print(note, markup=False, highlight=False)
    console.print(f"written: {out / 'index.html'}", markup=False, highlight=False, soft_wrap=True)


def write(out: Path, title: str, runs: Sequence[Run], found: Findings, problems: int) -> None:
    """Writes index.html, report.md and the pictures.

    Raises:
        OSError: a file cannot be written.
        RuntimeError: matplotlib or jinja2 is not installed.
    """
    drawn = {
        name: picture.draw(dark)
        for part in found.parts
        for picture in part.pictures
        for name, dark in ((f"{picture.name}.png", False), (f"{picture.name}-dark.png", True))
    }
    page = html(title, runs, found, drawn, problems)
    out.mkdir(parents=True, exist_ok=True)
    for name, png in drawn.items():
        (out / name).write_bytes(png)
    (out / "report.md").write_text(markdown(title, found), encoding="utf-8")
    (out / "index.html").write_text(page, encoding="utf-8", errors="replace")


def markdown(title: str, found: Findings) -> str:
    """The conclusion, the tables and notes, with links to the pictures."""
    lines = [f"# {title}", "", *(line for sentence in found.conclusion for line in (sentence, ""))]
    for part in found.parts:
        lines += [f"## {part.title}", "", *(line for note in part.notes for line in (note, ""))]
        lines += [*part.sheet.markdown(), ""]
        lines += [line for picture in part.pictures for line in (f"![{picture.alt}]({picture.name}.png)", "")]
    return "\n".join(lines)


def html(title: str, runs: Sequence[Run], found: Findings, drawn: Mapping[str, bytes], problems: int) -> str:
    """The page.

    Raises:
        RuntimeError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError("the page needs jinja2; in a checkout: pip install '.[bench]'") from error
    environment = Environment(
        loader=PackageLoader("bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    differing = disputed(runs)
    return environment.get_template("report.html").render(
        title=title,
        runs=runs,
        settings=[_settings(run) for run in runs],
        conclusion=found.conclusion,
        sections=found.parts,
        images={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in drawn.items()},
        colours=[COLOURS[place % len(COLOURS)] for place in range(len(runs))],
        disputes=[dispute(runs, name) for name in differing[:problems]],
        differing=len(differing),
    )


def _settings(run: Run) -> dict[str, str]:
    """How the run came about, as its manifest has it."""
    if run.manifest is None:
        return {"records": str(run.path), "manifest": "none"}
    settings, server, sessions = run.manifest.settings, run.manifest.server, run.manifest.sessions
    told = {
        "records": str(run.path),
        "model": " / ".join(dict.fromkeys(filter(None, [settings.model, server.model]))),
        "strategy": settings.strategy or "none: a plain request",
        "options": _json(settings.options),
        "sampling": _json(settings.sampling),
        "reward model": server.prm or "",
        "prompt": settings.prompt,
        "problems": f"{run.manifest.problems} of {settings.task} ({settings.split}), from number {settings.offset + 1}",
        "data": f"{settings.source}, SHA-256 {settings.data_sha256}",
        "at once": str(settings.concurrency),
        "server": " ".join(filter(None, [server.name, server.version, server.engine])),
        "machine": "; ".join(dict.fromkeys(session.machine for session in sessions)),
        "commit": "; ".join(dict.fromkeys(session.git_commit or "unknown" for session in sessions)),
        "command": "; ".join(dict.fromkeys(session.command for session in sessions)),
        "started": sessions[0].started if sessions else "",
    }
    return {name: value for name, value in told.items() if value}


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(dict(value), ensure_ascii=False) if value else ""
