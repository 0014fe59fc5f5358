"""The whole run, and what was wrong in it."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from bench.studies.faults.asks import Ask, asks, fine
from bench.studies.faults.clients import Address, Outcome, make
from bench.studies.faults.ledger import Ledger, compared, metered, traced
from bench.studies.faults.parts import Disk, Slow, on_a_full_disk, slow_readers, storm
from bench.studies.faults.upstream import FaultyUpstream
from bench.studies.faults.watch import Held, Watch, settled

READERS_FROM, DISK_FROM, BURST_FROM, WARM_FROM = 10_000_000, 20_000_000, 30_000_000, 40_000_000
"""Numbers of the requests of each part; the storm's begin at 0."""
BURST = 1536
"""Requests at once, in the end, more than samples grow at once: what a lost permit or connection would hold up."""
QUIET_S = 30.0
GROWTH = 1.1
"""Of the server's memory, from the first quarter of the storm to its last."""
GENERATED = "tts_generated_tokens_total"
UNDER_WAY = ("tts_requests_running", "tts_live_samples", "tts_queue_depth")


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
    left: dict[str, float]
    """Requests, samples and calls that the server itself says are under way, in the end."""
    generated: float
    """In the storm, by the server's metrics."""

    @property
    def problems(self) -> list[str]:
        found = [
            f"request {o.ask.number} ({o.ask.strategy}, {o.ask.mark}): {o.problem}" for o in self.outcomes if o.problem
        ]
        found += [*self.ledger.wrong, *self.slow.problems, *self.disk.problems]
        found += [f"in the burst: {o}" for o in self.burst if not o.answer or o.answer.status != 200]
        found += [f"{name} is {value:g}" for name, value in self.left.items() if value]
        if self.generated != self.ledger.tokens:
            found.append(f"the metrics tell {self.generated:g} generated tokens, the traces {self.ledger.tokens}")
        if self.left_upstream:
            found.append(f"{self.left_upstream} calls of the upstream go on")
        first, *_, last = quarters(self.rss)
        if last > GROWTH * first:
            found.append(f"memory: {first:.0f} bytes in the storm's first quarter, {last:.0f} in its last")
        # Python begins up to so many threads for what blocks, and keeps them.
        for name, more in (("files", 0), ("sockets", 0), ("threads", (os.cpu_count() or 1) + 4)):
            for held in (self.between, self.after):
                if getattr(held, name) > getattr(self.before, name) + more:
                    found.append(f"{name}: {self.before} before, {held} later")
        return found


def quarters(values: Sequence[int]) -> list[float]:
    """The mean of each quarter of some values."""
    size = max(1, len(values) // 4)
    parts = [values[i * size : (i + 1) * size] or values[-1:] for i in range(4)]
    return [sum(part) / len(part) for part in parts]


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
    before, generated = await _quiet(url, pid, upstream), (await metered(url))[GENERATED]
    watching = asyncio.create_task(watch.run())
    began = time.monotonic()
    outcomes = await storm(wanted, at, upstream, clients)
    seconds = time.monotonic() - began
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    between, generated = await _quiet(url, pid, upstream), (await metered(url))[GENERATED] - generated
    ledger = compared(outcomes, await traced(url), upstream.counts)
    slow = await slow_readers(readers, READERS_FROM, at, upstream)
    disk = await on_a_full_disk(url, pid, DISK_FROM, at)
    burst = await asyncio.gather(*(make(fine(BURST_FROM + i), at) for i in range(BURST)))
    left = upstream.live
    after, told = await _quiet(url, pid, upstream), await metered(url)
    gauges = {name: told[name] for name in UNDER_WAY}
    return Run(
        *(outcomes, seconds, ledger, slow, disk, list(burst), before, between, after, watch.rss, left),
        *(gauges, generated),
    )


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
            while (await http.get("/ready")).status_code != 200:  # noqa: ASYNC110  it is over there
                await asyncio.sleep(0.2)
    await _ended(upstream)
