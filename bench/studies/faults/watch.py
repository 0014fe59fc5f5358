"""What a process holds, as its system tells it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """At one moment."""

    rss: int
    files: int
    """Open descriptors, sockets among them."""
    sockets: int
    threads: int
    names: tuple[str, ...]
    """Of the open files."""


def held(pid: int) -> Held:
    process = psutil.Process(pid)
    with process.oneshot():
        sockets = len(process.net_connections(kind="tcp"))
        names = sorted(Path(file.path).name for file in process.open_files())
        return Held(process.memory_info().rss, process.num_fds(), sockets, process.num_threads(), tuple(names))


class Queued:
    """How long processes were ready to run and had no processor: what is late by that is not late by their fault.

    Args:
        pids: of the processes, each of which works on its main thread.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._files = [Path(f"/proc/{pid}/task/{pid}/schedstat") for pid in pids]

    def seconds(self) -> float:
        """Of all of them since their starts; 0 where the system does not tell."""
        return sum(int(file.read_text().split()[1]) for file in self._files if file.exists()) / 1e9


@dataclass(slots=True)
class Watch:
    """A process's memory over time."""

    pid: int
    every_s: float = 1.0
    rss: list[int] = field(default_factory=list)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self.rss.append(psutil.Process(self.pid).memory_info().rss)
            await asyncio.sleep(self.every_s)


async def settled(pid: int, at_most: int, timeout_s: float = 30.0) -> Held:
    """What is held once there are no more sockets than so many, or after a while."""
    until = asyncio.get_running_loop().time() + timeout_s
    while (now := held(pid)).sockets > at_most and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110  it is over there
        await asyncio.sleep(0.2)
    return now
