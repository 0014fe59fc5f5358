"""What the command line says on standard error: errors, in one sentence each."""

import typer
from rich.console import Console
from rich.markup import escape

err = Console(stderr=True)


def fail(message: object) -> typer.Exit:
    """Says one sentence on standard error; to be raised, it ends the command with exit code 1."""
    err.print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(1)
