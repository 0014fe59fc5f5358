"""Symbolic answers: LaTeX to a key that equal values share. Knows the worker process, not candidates or votes.

math-verify and sympy run in processes of their own, because sympy can hang on an innocent line and neither can be
interrupted in a thread. A worker starts on first use, answers one line of JSON with another, and arms a CPU timer for
each request, at whose end the kernel kills it; the next request starts a fresh one. It exits when its input closes, so
no way of ending the server leaves one behind.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["equal", "key"]

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="symbolic")
_thread = threading.local()


async def key(latex: str) -> str | None:
    """The key of an expression, set, interval, relation or matrix; None where it cannot be read in time.

    Raises:
        RuntimeError: no worker starts.
    """
    reply: str | None = await asyncio.get_running_loop().run_in_executor(_threads, _ask, "key", latex)
    return reply


async def equal(gold: str, answer: str) -> bool:
    """Whether math-verify takes `answer` for `gold`; False where it cannot tell in time. Not symmetric.

    Raises:
        RuntimeError: no worker starts.
    """
    return await asyncio.get_running_loop().run_in_executor(_threads, _ask, "equal", gold, answer) is True


@lru_cache(maxsize=8192)
def _ask(*request: str) -> Any:
    """The reply of this thread's worker; None if the request killed it."""
    worker: _Worker | None = getattr(_thread, "worker", None)
    if worker is None or not worker.alive:
        worker = _thread.worker = _Worker()
    return worker.ask(*request)


class _Worker:
    """One process, used by one thread.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self._end = weakref.finalize(self, _end, self._process)
        if self.ask("ready") is not True:
            raise RuntimeError("the process that compares answers did not start; is math-verify installed?")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, *request: str) -> Any:
        """The reply; None if the process died of the request."""
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        try:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            reply = replies.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            self._end()
        return json.loads(reply or "null")


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()
