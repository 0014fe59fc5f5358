"""What a command says when it cannot go on: one sentence, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

EXPECTED = (OSError, RuntimeError)
"""What the machine or a file causes, and not a mistake of this program."""

err = Console(stderr=True, soft_wrap=True)


def sentence(error: BaseException) -> str:
    """What went wrong, without Python's numbers and quotes."""
    match error:
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}"
    return str(error)


def fail(error: BaseException) -> typer.Exit:
    """Prints the sentence; the exit code is 1."""
    err.print(f"error: {sentence(error)}", style="red", markup=False, highlight=False)
    return typer.Exit(1)


@contextmanager
def in_sentences() -> Iterator[None]:
    """Ends the command with a sentence where something is expected to fail."""
    try:
        yield
    except EXPECTED as error:
        raise fail(error) from None


def check_file(path: Path | None, option: str) -> None:
    """Raises BadParameter for a file that could not be written, before anything is computed for it."""
    if path is None:
        return
    if path.is_dir():
        raise typer.BadParameter(f"is a file, and {path} is a directory", param_hint=option)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"is in a directory that exists; there is no {path.parent}", param_hint=option)
