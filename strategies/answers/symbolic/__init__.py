"""Symbolic answers: LaTeX to a key that equal values share. Knows the worker process, not candidates or votes.

math-verify and sympy run in processes of their own, because sympy can hang on an innocent line and neither can be
interrupted in a thread. One script imports them and forks the processes that read; each arms a CPU timer for each
request, at whose end the kernel kills it, and another is forked at once. They exit when their sockets close, so no way
of ending the server leaves one behind.

What takes long is asked of other processes than what does not, so no answer waits behind one that hangs.
"""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

__all__ = ["begin", "equal", "key", "start"]

SHORT_S = 0.3
"""CPU seconds in which nearly every expression is read: CPU, so that a busy machine does not change a key."""
LONG_S = 1.5
"""CPU seconds for what takes longer than that."""
_AT_ONCE = 2
_LATE = False
"""The reply to a request whose time was over."""


def begin() -> None:
    """Begins to start what reads expressions, so that nobody has to wait for it; whoever needs it says if it fails."""
    threading.Thread(target=_begin, name="symbolic-start", daemon=True).start()


def _begin() -> None:
    with suppress(RuntimeError, OSError):
        _processes.start()


async def start() -> None:
    """Waits until expressions can be read.

    Raises:
        RuntimeError: the process that reads them does not start.
    """
    if not _processes.running:
        await asyncio.get_running_loop().run_in_executor(None, _processes.start)


async def key(latex: str) -> str | None:
    """The key of an expression, set, interval, relation or matrix; None where it cannot be read in time.

    Raises:
        RuntimeError: no worker starts.
    """
    reply = await _short.ask("key", latex)
    if reply is _LATE:
        reply = await _long.ask("key", latex)
    return reply or None


async def equal(gold: str, answer: str) -> bool:
    """Whether math-verify takes `answer` for `gold`; False where it cannot tell in time. Not symmetric.

    Raises:
        RuntimeError: no worker starts.
    """
    return await _long.ask("equal", gold, answer) is True


class _Lane:
    """Requests that may take as long as each other: a thread and a process for each that is answered at a time."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name = name
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"symbolic-{name}")
        self._reply = lru_cache(maxsize=8192)(self._reply_uncached)

    async def ask(self, *request: str) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._reply, *request)

    def _reply_uncached(self, *request: str) -> Any:
        return _processes.ask(self.name, [self._limit_s, *request])


class _Channel:
    """The socket of one process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("r")
        self._numbers = itertools.count()

    def ask(self, request: list[Any]) -> Any:
        """The reply.

        Raises:
            EOFError: no process is there.
        """
        number = next(self._numbers)
        with suppress(BrokenPipeError):
            self._connection.sendall(json.dumps([number, *request]).encode() + b"\n")
        for line in self._replies:
            reply = json.loads(line)
            if reply is _LATE:
                return _LATE
            if reply[0] == number:
                return reply[1]
        raise EOFError

    def close(self) -> None:
        self._replies.close()
        self._connection.close()


class _Worker:
    """The script, and the channels that nobody uses, by lane.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self) -> None:
        pairs = [socket.socketpair() for _ in range(_AT_ONCE * len(_LANES))]
        theirs = [theirs for _, theirs in pairs]
        channels = [_Channel(ours) for ours, _ in pairs]
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), *(str(end.fileno()) for end in theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            pass_fds=[end.fileno() for end in theirs],
            # A terminal's Ctrl-C is for the server, which ends it.
            process_group=0,
        )
        self.end = weakref.finalize(self, _end, process, channels)
        for end in theirs:
            end.close()
        self._free: dict[str, SimpleQueue[_Channel]] = {name: SimpleQueue() for name in _LANES}
        for place, channel in enumerate(channels):
            self._free[_LANES[place // _AT_ONCE]].put(channel)
        try:
            channels[0].ask([LONG_S, "key", "1"])
        except EOFError:
            self.end()
            raise RuntimeError("the process that compares answers did not start; is math-verify installed?") from None

    def ask(self, lane: str, request: list[Any]) -> Any:
        """The reply.

        Raises:
            EOFError: no process is there any more.
        """
        channel = self._free[lane].get()
        try:
            return channel.ask(request)
        finally:
            self._free[lane].put(channel)


class _Processes:
    """The worker of this process, started on first use, and again if somebody ends it."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._worker: _Worker | None = None

    @property
    def running(self) -> bool:
        return self._worker is not None

    def start(self) -> _Worker:
        with self._starting:
            if self._worker is None:
                self._worker = _Worker()
            return self._worker

    def ask(self, lane: str, request: list[Any]) -> Any:
        worker = self.start()
        try:
            return worker.ask(lane, request)
        except EOFError:
            with self._starting:
                if self._worker is worker:
                    self._worker = None
        return self.start().ask(lane, request)


def _end(process: "subprocess.Popen[bytes]", channels: list[_Channel]) -> None:
    process.kill()
    process.wait()
    for channel in channels:
        channel.close()


_LANES = ("short", "long")
_short, _long = _Lane("short", SHORT_S), _Lane("long", LONG_S)
_processes = _Processes()
