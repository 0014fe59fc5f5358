"""Many streams at once against the fake engine: are all answered, is none mixed up, does memory stay flat.

python -m bench.studies.load --requests 5000 --clients 200 --out bench/results/load.md
"""

import asyncio
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer

from bench.failures import check_file
from bench.stored.machine import machine, versions
from bench.studies.processes import free_port, running, tts_server

STRATEGIES = ("single", "best_of_n", "self_consistency")


async def stream(http: httpx.AsyncClient, number: int) -> str | None:
    """What is wrong with the answer to request `number`; None if nothing is."""
    question = f"This is question number {number}, and no other."
    body = {
        "model": "fake",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tts": {"strategy": STRATEGIES[number % len(STRATEGIES)]},
    }
    text, done, usage = "", False, 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            return f"status {response.status_code}"
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                usage += (chunk.get("usage") or {}).get("completion_tokens", 0)
    if question not in text:
        return f"another's answer: {text[:80]!r}"
    return None if done and usage else "no end or no usage"


async def load(url: str, requests: int, clients: int) -> tuple[list[str], float]:
    """All faults, and the seconds it took."""
    numbers = iter(range(requests))
    faults: list[str] = []

    async def client(http: httpx.AsyncClient) -> None:
        for number in numbers:
            fault = await stream(http, number)
            if fault:
                faults.append(f"request {number}: {fault}")

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client(http))
        return faults, time.perf_counter() - began


def main(
    requests: Annotated[int, typer.Option(min=1, help="Requests that count.")] = 5000,
    clients: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 200,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints what was answered and how the server's memory grew."""
    check_file(out, "--out")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = tts_server("--engine", "fake", "--prm", "fake", "--port", str(port), "--log-level", "warning")
        with running(command, port, Path(folder) / "server.log") as server:
            process, url = psutil.Process(server.pid), f"http://127.0.0.1:{port}"
            faults, _ = asyncio.run(load(url, 2 * clients, clients))
            before = process.memory_info().rss
            later, seconds = asyncio.run(load(url, requests, clients))
            after = process.memory_info().rss
    faults += later
    lines = [
        f"- {requests} streamed requests, {clients} at once, over {', '.join(STRATEGIES)}: "
        f"{requests - len(later)} answered right, {len(later)} not",
        f"- {requests / seconds:.0f} requests a second, load and server on the same cores",
        f"- server's RSS after a warm-up of {2 * clients} requests {before / 2**20:.1f} MiB, after {requests} more "
        f"{after / 2**20:.1f} MiB: {(after - before) / 2**20:+.1f} MiB",
    ]
    print("\n".join([*lines, *faults[:20]]))
    if out:
        command_line = shlex.join(["python", "-m", "bench.studies.load", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'httpx')}."
        out.write_text("\n".join(["# Load", "", f"    {command_line}", "", note, "", *lines, ""]))
    if faults:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
