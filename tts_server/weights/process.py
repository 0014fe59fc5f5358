"""Other processes: running one to its end, and keeping out of the way of one that does the same."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

__all__ = ["ProcessFailed", "Run", "Tick", "locked", "run"]

Tick = Callable[[], None]


class ProcessFailed(Exception):
    """A program ended with an error; the message is the line of its output that says which."""


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(self, command: Sequence[str], scratch: Path, environment: Mapping[str, str], tick: Tick) -> None:
        """`scratch` takes its output, `environment` adds to this process's, `tick` is called while it runs.

        An exception of `tick` does not end the program: it only looks on.

        Raises:
            ProcessFailed: it ended with an error.
        """
        ...


def run(command: Sequence[str], scratch: Path, environment: Mapping[str, str], tick: Tick) -> None:
    """A `Run`. The program does not outlive this call."""
    log = scratch / "log.txt"
    # To a file: a pipe that nobody reads meanwhile would fill up and stop the program.
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
        )
        try:
            while _running(process):
                with suppress(Exception):
                    tick()
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise ProcessFailed(_reason(log) or f"it ended with status {process.returncode}")


def _running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return True
    return False


def _reason(log: Path) -> str:
    """The last line that speaks of an error, or else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), "".join(lines[-1:]))


@contextmanager
def locked(file: Path, waiting: Tick) -> Iterator[None]:
    """Lets one process in at a time; `waiting` is called once if another one is inside.

    The system frees the lock when its holder dies.
    """
    import fcntl  # noqa: PLC0415  (Windows lacks it, and only a pull needs it)

    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
