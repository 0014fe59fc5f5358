"""The consoles of the command line."""

import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

err = Console(stderr=True)

_UNBOUNDED = 100_000
"""Columns of a console whose lines nothing bounds."""


def fail(message: object) -> typer.Exit:
    """Says one sentence on standard error; to be raised, it ends the command with exit code 1."""
    err.print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


def output() -> Console:
    """Standard output; a pipe or a file has whole lines, unless COLUMNS bounds them."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_UNBOUNDED)


def samples(count: int) -> str:
    """A count of samples in words."""
    return "1 sample" if count == 1 else f"{count} samples"


def own_console() -> Console:
    """Standard error by a descriptor of its own, which stays when another one is put in the place of 2.

    Where Python's `sys.stderr` is something else, it is that.
    """
    try:
        is_descriptor = sys.stderr.fileno() == 2
    except (OSError, ValueError):
        is_descriptor = False
    if not is_descriptor:
        return Console(stderr=True)
    encoding = sys.stderr.encoding
    return Console(file=os.fdopen(os.dup(2), "w", buffering=1, encoding=encoding, errors="backslashreplace"))


def has_console_of_its_own(console: Console) -> bool:
    """Whether it is `own_console`'s, and not `sys.stderr`."""
    return console.file is not sys.stderr
