"""Servers as child processes on this machine: started on a free port, awaited, ended by their process id."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300,
    ready: str = "/health",
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers `ready` on `port` with 200; its whole process group ends with the block.

    Raises:
        RuntimeError: it died or did not answer in time; the end of its log is in the message.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True
        )
    try:
        _await_ready(process, f"http://127.0.0.1:{port}{ready}", log, timeout_s)
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Asks the process to stop, then its group, then makes it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tts_server(*arguments: str) -> list[str]:
    """The command that serves with this very Python."""
    return [sys.executable, "-m", "tts_server.cli.main", "serve", *arguments]


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log: Path, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    raise RuntimeError(f"the server did not come up; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
