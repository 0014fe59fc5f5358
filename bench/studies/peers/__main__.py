"""Requests a second and added latency of our server and of its peers, all in one run.

Servers run on one core; the load and the upstream, which answers at once, on another. Peers come from PyPI, each into
an environment of its own; one that cannot be installed is left out, and the report says why.

    python -m bench.studies.peers --out bench/results/peers.md
"""

import asyncio
import os
import shlex
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.stats.tables import Sheet
from bench.stored.machine import machine, versions
from bench.studies.peers.contestants import BARE, CHAT, EIGHT, OURS, PEERS, Contestant, serving
from bench.studies.peers.drive import Timed, Work, drive
from bench.studies.peers.environments import Unavailable
from bench.studies.peers.stub import stub
from bench.studies.processes import free_port, running, tts_server

CLIENTS = 32
TOKENS = 64
PLAIN_PACE, STREAMED_PACE = 600, 300
"""Requests a second that a server has to answer well, whatever more it can."""
CHAT_PATH = "/v1/chat/completions"
DIRECT = "the upstream itself"
FAKE = {**CHAT, "model": "fake"}
PLAIN = Work({**FAKE, "max_tokens": 16}, b'"chat.completion"')
STREAMED = Work(
    {**FAKE, "max_tokens": TOKENS, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}},
    b'"completion_tokens":%d' % TOKENS,
)


class Cell(NamedTuple):
    """One server at one kind of work."""

    server: str
    work: str
    clients: int


Rounds = dict[Cell, list[Timed]]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Runs this process, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def fake_rounds(rounds: int, seconds: float, core: int, folder: Path) -> Rounds:
    """Our server with the engine that answers at once."""
    port = free_port()
    command = tts_server("--engine", "fake", "--prm", "none", "--port", str(port), "--log-level", "warning")
    seen: Rounds = defaultdict(list)
    async with AsyncExitStack() as stack:
        with on_core(core):
            stack.enter_context(running(command, port, folder / "fake.log"))
        url = f"http://127.0.0.1:{port}{CHAT_PATH}"
        for _ in range(rounds):
            for name, work, pace in (
                ("plain", PLAIN, None),
                ("streamed", STREAMED, None),
                (f"plain, {PLAIN_PACE} a second", PLAIN, PLAIN_PACE),
                (f"streamed, {STREAMED_PACE} a second", STREAMED, STREAMED_PACE),
            ):
                timed = await drive(url, work, CLIENTS, seconds, per_second=pace)
                seen[Cell(OURS.name, name, CLIENTS)].append(timed)
    return seen


async def upstream_rounds(
    contestants: Sequence[Contestant], rounds: int, seconds: float, core: int, folder: Path
) -> tuple[Rounds, dict[str, str]]:
    """Every server in front of the same upstream, by turns; and why some are left out."""
    seen: Rounds = defaultdict(list)
    left_out: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(stub())
        up: list[tuple[Contestant, str]] = []
        for contestant in contestants:
            try:
                # In a thread: what is started looks at the upstream, which answers in this one.
                place = await asyncio.to_thread(_start, contestant, upstream, core, folder)
            except Unavailable as error:
                left_out[contestant.name] = str(error)
                continue
            stack.callback(place.end)
            up.append((contestant, place.origin))
        for _ in range(rounds):
            direct = await drive(upstream + CHAT_PATH, Work(CHAT, b"boxed{4}"), 1, seconds / 2)
            seen[Cell(DIRECT, "one", 1)].append(direct)
            for contestant, origin in up:
                for name, work, clients in (
                    ("one", contestant.one, 1),
                    ("one", contestant.one, CLIENTS),
                    ("eight", contestant.eight, CLIENTS),
                ):
                    timed = await drive(origin + CHAT_PATH, work, clients, seconds)
                    seen[Cell(contestant.name, name, clients)].append(timed)
    return seen, left_out


class _Place(NamedTuple):
    origin: str
    end: Callable[[], None]


def _start(contestant: Contestant, upstream: str, core: int, folder: Path) -> _Place:
    with on_core(core):
        server = serving(contestant, upstream, folder)
        origin = server.__enter__()

    def end() -> None:
        server.__exit__(None, None, None)

    return _Place(origin, end)


def median(rounds: Sequence[Timed], figure: Callable[[Timed], float]) -> float:
    return statistics.median(map(figure, rounds))


def fake_sheet(seen: Rounds) -> Sheet:
    lines = [
        [cell.work, f"{median(t, lambda x: x.rate):.0f}", f"{median(t, lambda x: x.p50_ms):.1f}", f"{p99(t):.1f}"]
        for cell, t in seen.items()
    ]
    return Sheet(["fake engine, 32 clients", "requests/s", "p50, ms", "p99, ms"], lines)


def p99(rounds: Sequence[Timed]) -> float:
    return median(rounds, lambda timed: timed.p99_ms)


def upstream_sheet(seen: Rounds) -> Sheet:
    """A line a server; how many times as many requests a second as each peer we answer stands beside it."""
    direct = median(seen[Cell(DIRECT, "one", 1)], lambda timed: timed.p50_ms)
    lines = []
    for name in dict.fromkeys(cell.server for cell in seen if cell.server != DIRECT):
        line = [name]
        for work in ("one", "eight"):
            timed = seen[Cell(name, work, CLIENTS)]
            line += [f"{median(timed, lambda x: x.rate):.0f}", f"{p99(timed):.1f}", times(seen, name, work)]
        alone = median(seen[Cell(name, "one", 1)], lambda timed: timed.p50_ms)
        lines.append([*line, f"{alone - direct:.2f}"])
    heads = [
        f"{work}, {what}" for work in ("one", "eight") for what in ("requests/s", "p99, ms", "ours is (no traces)")
    ]
    return Sheet(["server", *heads, "added p50 at one client, ms"], lines)


def times(seen: Rounds, name: str, work: str) -> str:
    """How many times a peer's requests a second ours are, and without traces: the medians over paired rounds."""
    if name in (OURS.name, BARE.name):
        return ""

    def ratio(mine: str) -> str:
        pairs = zip(seen[Cell(mine, work, CLIENTS)], seen[Cell(name, work, CLIENTS)], strict=True)
        return f"{statistics.median(ours.rate / theirs.rate for ours, theirs in pairs):.1f}"

    return f"× {ratio(OURS.name)} ({ratio(BARE.name)})"


def report(fake: Rounds, upstream: Rounds, left_out: dict[str, str]) -> list[str]:
    lines = [*fake_sheet(fake).markdown(), "", *upstream_sheet(upstream).markdown()]
    lines += [f"- left out: {name}: {why}" for name, why in left_out.items()]
    return lines


def main(
    rounds: Annotated[int, typer.Option(help="How often each server has its turn.")] = 3,
    seconds: Annotated[float, typer.Option(help="Seconds of a turn.")] = 4.0,
    peers: Annotated[bool, typer.Option(help="Whether the peers are measured too.")] = True,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints the tables."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise typer.BadParameter("this needs Linux and two cores, one for the servers and one for the load")
    servers, load, *_ = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, on_core(load):
        folder = Path(name)
        fake = asyncio.run(fake_rounds(rounds, seconds, servers, folder))
        contestants = [OURS, BARE, *(PEERS if peers else ())]
        upstream, left_out = asyncio.run(upstream_rounds(contestants, rounds, seconds, servers, folder))
    lines = report(fake, upstream, left_out)
    print("\n".join(lines))
    if out:
        command = shlex.join(["python", "-m", "bench.studies.peers", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'uvloop', 'httptools', 'orjson')}."
        out.write_text("\n".join(["# Beside its peers", "", f"    {command}", "", note, "", NOTE, "", *lines, ""]))


NOTE = f"""Servers on one core, the load and the upstream on another; medians of rounds in which each server had its
turn, ratios of paired rounds. `plain`: one answer of up to 16 tokens. `streamed`: {TOKENS} tokens, a chunk each; as
fast as {CLIENTS} clients ask, and at a pace, where a request is timed from when it was due. The upstream answers at
once, and a stream with one piece a sample. `one`: one sample. `eight`: {EIGHT} samples, of which tts-server and its_hub
return the answer that most agree on; optillm and LiteLLM pass `n` on, which is less. tts-server writes down a record of
each search, which no peer does; `no traces` is without it."""


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        typer.run(main)
