"""The server before an upstream on which everything goes wrong, with clients that vanish, full disks and wrong clocks.

Every request has to get exactly one well-formed answer or error in time, all that is generated has to be counted, and
nothing may be left behind. Everything is on this machine, and what is started is ended by its process id.

    python -m bench.studies.faults --requests 10000 --out bench/results/faults.md
"""

import asyncio
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.stored.machine import machine, versions
from bench.studies.faults.asks import asks
from bench.studies.faults.clients import Address
from bench.studies.faults.report import report
from bench.studies.faults.run import Run, run
from bench.studies.faults.upstream import FaultyUpstream
from bench.studies.faults.watch import Queued
from bench.studies.processes import free_port, running


def served(upstream: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of the server and its environment."""
    command = [
        sys.executable,
        "-m",
        "bench.studies.faults.inside",
        "serve",
        "--engine",
        "openai",
        "--upstream",
        upstream,
    ]
    command += ["--prm", "fake,judge", "--port", str(port), "--log-level", "error"]
    # All slow readers are to be under way at once.
    return command, {
        "TTS_SERVER_DATA_DIR": str(folder / "data"),
        "TTS_SERVER_MAX_REQUESTS": "2048",
        "TTS_SERVER_MAX_LIVE_SAMPLES": "1024",
    }


async def measure(requests: int, clients: int, readers: int, seed: int) -> Run:
    """Starts the server and the upstream, and ends both."""
    upstream = FaultyUpstream(seed)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        async with upstream.serve() as url:
            command, env = served(url, Path(folder), port)
            # The upstream is in this process: it has to answer while the server is awaited.
            starting = running(command, port, Path(folder) / "server.log", env)
            server = await asyncio.to_thread(starting.__enter__)
            try:
                return await run(
                    Address("127.0.0.1", port, Queued([server.pid, os.getpid()])),
                    server.pid,
                    upstream,
                    asks(requests, seed),
                    clients,
                    readers,
                )
            finally:
                await asyncio.to_thread(starting.__exit__, None, None, None)


def main(
    requests: Annotated[int, typer.Option(help="Requests of the storm.")] = 10_000,
    clients: Annotated[int, typer.Option(help="Of them at once.")] = 48,
    readers: Annotated[int, typer.Option(help="Slow readers at once.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints what went wrong, if anything did, and the figures."""
    seen = asyncio.run(measure(requests, clients, readers, seed))
    lines = report(seen, seed)
    print("\n".join([*lines, *map(json.dumps, seen.problems[:50])]))
    if out:
        command = shlex.join(["python", "-m", "bench.studies.faults", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'uvloop', 'httptools', 'orjson')}."
        out.write_text("\n".join(["# Faults", "", f"    {command}", "", note, "", *lines, ""]))
    if seen.problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
