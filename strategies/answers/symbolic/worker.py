"""The worker of `strategies.answers.symbolic`: a script that reads LaTeX in processes that may die of it.

It imports what reads LaTeX once, forks a process for each socket that its arguments name, and forks another whenever
one dies, which takes milliseconds. It ends when every socket is closed at the other end.
"""

import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

MEMORY_LIMIT = 4 << 30
"""Bytes of address space."""
WARMING = (
    r"\frac{1}{2}+\sqrt{3}\pi-2^{x}",
    r"\sin(x)\cos{2\theta}",
    r"\{1,x_{1}\}",
    r"[1,\infty)",
    r"x^2+y=3",
    r"-1<x\le 2",
    r"\log_{2}(3)\ln x",
    r"|x-1|e^{i\pi}",
    r"\lfloor \frac{n}{2}\rfloor+f(n)",
    r"\binom{n}{2}n!",
)
"""Read before the first fork: the parser is several times slower on what it has not met yet."""


def main(descriptors: list[int]) -> None:
    """Keeps one process at each socket."""
    logging.disable(logging.ERROR)
    for latex in WARMING:
        _reply("key", latex)
    gc.freeze()
    served = {_fork(descriptor): descriptor for descriptor in descriptors}
    while served:
        pid, status = os.wait()
        descriptor = served.pop(pid)
        if os.WIFSIGNALED(status):
            with suppress(OSError):
                os.write(descriptor, b"false\n")
            served[_fork(descriptor)] = descriptor
        else:
            os.close(descriptor)


def _fork(descriptor: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _serve(descriptor)
        finally:
            os._exit(0)
    return pid


def _serve(descriptor: int) -> None:
    """Answers requests until the other end closes, or until one takes too long and the kernel ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with socket.socket(fileno=descriptor) as connection, suppress(OSError):
        requests, replies = connection.makefile("r"), connection.makefile("w")
        for line in requests:
            number, limit_s, *request = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            reply = _reply(*request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            replies.write(json.dumps([number, reply]) + "\n")
            replies.flush()


def _reply(kind: str, *latex: str) -> bool | str | None:
    try:
        return expressions.key(*latex) if kind == "key" else expressions.equal(*latex) or None
    except Exception:
        # sympy fails in any way there is on input it does not foresee, and all of them say: not readable.
        return None


if __name__ == "__main__":
    # By its file, as the rest of the package is not needed: importing it would take longer than reading.
    sys.path.append(str(Path(__file__).parent))
    expressions = import_module("expressions")
    main(list(map(int, sys.argv[1:])))
