"""How long work tells that it goes on: lines and bars on standard error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

__all__ = ["Report", "bytes_in", "harmless", "progress"]


class Report(Protocol):
    """Takes one line, or the state of a transfer."""

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """`done` of `total` bytes; without `done` it is a line, without `total` its end is not known."""
        ...


class _Bars:
    """One bar a text on a terminal; elsewhere each new text once."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        if done is None or not self._console.is_terminal:
            return self._line(text)
        if text not in self._tasks:
            self._tasks[text] = self._bars.add_task(text)
        self._bars.update(self._tasks[text], completed=done, total=total)
        return None

    def _line(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


shown: ContextVar[Report | None] = ContextVar("shown", default=None)
"""Takes all reports, where somebody shows them already."""


@contextmanager
def progress() -> Iterator[Report]:
    """Shows reports on standard error."""
    if report := shown.get():
        yield report
        return
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        DownloadColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield _Bars(console, bars)


def bytes_in(directory: Path) -> int:
    """Size of all files below a directory that another program may change meanwhile; what goes counts nothing."""
    total = 0
    # Path.rglob raises where a directory goes between its listing and the look inside; os.walk passes over it.
    for place, _, files in os.walk(directory):
        for file in files:
            with suppress(OSError):
                total += os.stat(os.path.join(place, file)).st_size
    return total


def harmless(report: Report) -> Report:
    """Passes reports on; a report that fails does not end the work that it is about."""

    def pass_on(text: str, done: int | None = None, total: int | None = None) -> None:
        with suppress(Exception):
            report(text, done, total)

    return pass_on
