"""A server as its user starts it: the command line in a process of its own, on a free port."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from patience import NEVER_S

COMMAND = (sys.executable, "-m", "tts_server.cli.main")


@contextmanager
def served(
    *arguments: str,
    timeout_s: float = NEVER_S,
    command: Sequence[str] = COMMAND,
    cwd: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The base URL of `tts-server serve` with these flags, and its process, which ends with the block."""
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**env, "COLUMNS": "200"},
    )
    said: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if line.startswith("ready: "):
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(timeout_s), "".join(said)
        found = re.search(r"ready: \S+ at (http://\S+)/v1", "".join(said))
        assert found, "".join(said)
        yield found[1], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(NEVER_S)
        reader.join(NEVER_S)
        assert process.stdout
        process.stdout.close()
