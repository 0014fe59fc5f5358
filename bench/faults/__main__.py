"""The server before an upstream on which everything goes wrong, with clients that vanish, full disks and wrong clocks.

Every request has to get exactly one well-formed answer or error in time, all that is generated has to be counted, and
nothing may be left behind. Everything is on this machine, and what is started is ended by its process id.

    python -m bench.faults --requests 10000 --out bench/results/faults.md
"""

import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from bench.faults.answers import worst
from bench.faults.asks import Ask, asks, fine
from bench.faults.clients import Address, Outcome, make
from bench.faults.ledger import Ledger, compared, traced
from bench.faults.parts import Disk, Slow, on_a_full_disk, slow_readers, storm
from bench.faults.upstream import FaultyUpstream
from bench.faults.watch import MIB, Held, Queued, Watch, settled
from bench.machine import machine, versions
from bench.processes import free_port, running

READERS_FROM, DISK_FROM, BURST_FROM, WARM_FROM = 10_000_000, 20_000_000, 30_000_000, 40_000_000
"""Numbers of the requests of each part; the storm's begin at 0."""
BURST = 256
"""Requests at once, in the end: what a lost permit or connection would hold up."""
QUIET_S = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was seen."""

    outcomes: list[Outcome]
    seconds: float
    ledger: Ledger
    slow: Slow
    disk: Disk
    burst: list[Outcome]
    before: Held
    between: Held
    """Behind the storm."""
    after: Held
    rss: list[int]
    """In the storm."""
    left_upstream: int
    """Calls of the upstream that nobody ended."""

    @property
    def problems(self) -> list[str]:
        found = [
            f"request {o.ask.number} ({o.ask.strategy}, {o.ask.mark}): {o.problem}" for o in self.outcomes if o.problem
        ]
        found += [*self.ledger.wrong, *self.slow.problems, *self.disk.problems]
        found += [f"in the burst: {o}" for o in self.burst if not o.answer or o.answer.status != 200]
        if self.left_upstream:
            found.append(f"{self.left_upstream} calls of the upstream go on")
        # Python begins up to so many threads for what blocks, and keeps them.
        for name, more in (("files", 0), ("sockets", 0), ("threads", (os.cpu_count() or 1) + 4)):
            for held in (self.between, self.after):
                if getattr(held, name) > getattr(self.before, name) + more:
                    found.append(f"{name}: {self.before} before, {held} later")
        return found


async def run(
    at: Address, pid: int, upstream: FaultyUpstream, wanted: Sequence[Ask], clients: int, readers: int
) -> Run:
    """All parts, one after the other."""
    url = f"http://{at.host}:{at.port}"
    watch = Watch(pid)
    await storm(asks(max(len(wanted) // 10, 100), 1, WARM_FROM), at, upstream, clients)
    # Files that are opened when they are first needed.
    await traced(url)
    await on_a_full_disk(url, pid, WARM_FROM + len(wanted), at)
    before = await _quiet(url, pid, upstream)
    watching = asyncio.create_task(watch.run())
    began = time.monotonic()
    outcomes = await storm(wanted, at, upstream, clients)
    seconds = time.monotonic() - began
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    between = await _quiet(url, pid, upstream)
    ledger = compared(outcomes, await traced(url), upstream.counts)
    slow = await slow_readers(readers, READERS_FROM, at, upstream)
    disk = await on_a_full_disk(url, pid, DISK_FROM, at)
    burst = await asyncio.gather(*(make(fine(BURST_FROM + i), at) for i in range(BURST)))
    left = upstream.live
    after = await _quiet(url, pid, upstream)
    return Run(outcomes, seconds, ledger, slow, disk, list(burst), before, between, after, watch.rss, left)


async def _quiet(url: str, pid: int, upstream: FaultyUpstream) -> Held:
    """What the server holds when nobody asks anything and all its connections have been closed from outside."""
    await _ended(upstream)
    await upstream.die()
    found = await settled(pid, at_most=1)
    await upstream.rise()
    await _up(url, pid, upstream)
    return found


async def _ended(upstream: FaultyUpstream) -> None:
    until = time.monotonic() + QUIET_S
    while upstream.live and time.monotonic() < until:  # noqa: ASYNC110  a count sets no event
        await asyncio.sleep(0.1)


async def _up(url: str, pid: int, upstream: FaultyUpstream) -> None:
    """Waits until the server has found its upstream again, and nothing is under way."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        async with asyncio.timeout(QUIET_S):
            while (await http.get("/health")).status_code != 200:  # noqa: ASYNC110  it is over there
                await asyncio.sleep(0.2)
    await _ended(upstream)


def served(upstream: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of the server and its environment."""
    command = [sys.executable, "-m", "bench.faults.inside", "serve", "--engine", "openai", "--upstream", upstream]
    command += ["--prm", "fake,judge", "--port", str(port), "--log-level", "error"]
    return command, {"TTS_SERVER_DATA_DIR": str(folder / "data"), "TTS_SERVER_MAX_REQUESTS": "2048"}


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


def report(seen: Run, seed: int) -> list[str]:
    """The figures as lines of Markdown."""
    outcomes = seen.outcomes
    answered = [o for o in outcomes if o.answer]
    told = Counter(_told(o) for o in outcomes)
    faults = Counter(o.ask.mark.fault for o in outcomes)
    late = [o.late_s for o in answered if not o.ask.slow] or [0.0]
    ledger, slow, disk = seen.ledger, seen.slow, seen.disk
    mean = [sum(part) / len(part) / MIB for part in _parts(seen.rss, 4)]
    return [
        f"- {len(outcomes)} requests of {len({o.ask.strategy for o in outcomes})} strategies and routes in "
        f"{seen.seconds:.0f} s, seed {seed}: {len(seen.problems)} of them, or of what follows, went wrong",
        f"- told: {', '.join(f'{count} {what}' for what, count in told.most_common())}",
        f"- faults of the upstream that were asked for: {', '.join(f'{n} {f}' for f, n in faults.most_common())}",
        f"- {sum(o.ask.mark.prm != 'none' for o in outcomes)} asked for a fault of the reward model; the server's wall "
        "clock stepped by up to an hour every 2 s; the upstream died 3 times",
        f"- behind the deadline: p50 {worst(late, 0.5):.2f} s, p99 {worst(late, 0.99):.2f} s, at most "
        f"{max(late):.2f} s; without the time in which the server or its clients had no processor at most "
        f"{max(o.late_s - o.queued_s for o in answered if not o.ask.slow):.2f} s (1 s is allowed)",
        f"- usage: of {ledger.exact} requests exactly what the upstream counted; of {ledger.cut}, some of whose calls "
        f"were broken off or given up, not less than was surely read and not more than was sent. All together "
        f"{ledger.tokens} tokens are counted, {ledger.generated} were read, {ledger.unread} perhaps not",
        f"- {slow.most} streams at once for slow readers, each told whole; {len(slow.seconds)} other answers "
        f"meanwhile: p50 {1000 * worst(slow.seconds, 0.5):.0f} ms, p99 {1000 * worst(slow.seconds, 0.99):.0f} ms",
        f"- on a full disk {disk.chats} chats were answered and {disk.refused} uploads refused with 507; {disk.lines} "
        f"lines of the batch under way were answered once each, {disk.seconds:.1f} s after there was room again",
        f"- in the end {len(seen.burst)} requests at once were answered; {seen.left_upstream} calls of the upstream "
        f"were left; the server held {_held(seen.before)} before and {_held(seen.after)} after",
        f"- the server's RSS: {seen.before.rss / MIB:.1f} MiB behind the warm-up, {seen.between.rss / MIB:.1f} behind "
        f"the storm, whose quarters had {', '.join(f'{m:.1f}' for m in mean)} on average and at most "
        f"{max(seen.rss) / MIB:.1f}; {seen.after.rss / MIB:.1f} behind everything",
    ]


def _told(outcome: Outcome) -> str:
    if outcome.problem:
        return "wrong"
    if outcome.answer is None:
        return "clients that vanished"
    if outcome.answer.error:
        return f"{outcome.answer.status} {outcome.answer.error}"
    return "answers"


def _held(held: Held) -> str:
    return f"{held.files} files ({held.sockets} TCP sockets) and {held.threads} threads"


def _parts(values: Sequence[int], count: int) -> list[Sequence[int]]:
    size = max(1, len(values) // count)
    return [values[i * size : (i + 1) * size] or values[-1:] for i in range(count)]


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
        command = shlex.join(["python", "-m", "bench.faults", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'uvloop', 'httptools', 'orjson')}."
        out.write_text("\n".join(["# Faults", "", f"    {command}", "", note, "", *lines, ""]))
    if seen.problems:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
