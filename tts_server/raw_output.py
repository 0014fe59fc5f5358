"""What an engine's libraries and processes write to the standard streams while it loads, kept apart from our own lines.

Knows nothing of engines: file descriptors in, lines out.
"""

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

held: ContextVar[bool] = ContextVar("held", default=False)
"""Whether such output is held back. Whoever sets it writes its own lines elsewhere than to descriptor 2."""

_KEPT = 400
"""The last lines are those that say why."""
_CAUSE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception)): (\S.*)")
_SYMPTOM = re.compile(r"initialization failed|failed to start|root cause|process terminated|died", re.IGNORECASE)
_STREAMS = (1, 2)


class RawOutput:
    """Lines as they come. Those of the time of loading are kept, later ones go where they belong."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._passed_on: int | None = None
        self._lock = threading.Lock()

    @property
    def lines(self) -> Sequence[str]:
        return tuple(self._lines)

    def read(self, descriptor: int) -> None:
        """Reads to the end, which comes when every process that writes has ended."""
        with open(descriptor, "rb") as source:
            for line in source:
                with self._lock:
                    if self._passed_on is None:
                        self._lines.append(line.decode(errors="replace").rstrip())
                    else:
                        with suppress(OSError):  # nobody reads our own streams any more
                            os.write(self._passed_on, line)

    def pass_on(self, descriptor: int) -> None:
        """What comes from now on goes there, as it is."""
        with self._lock:
            self._passed_on = descriptor


@contextmanager
def captured() -> Iterator[RawOutput]:
    """Holds back what this process and those that it starts meanwhile write, where that is wanted."""
    raw = RawOutput()
    if not held.get():
        yield raw
        return
    source, sink = os.pipe()
    saved = {number: os.dup(number) for number in _STREAMS}
    sys.stdout.flush()
    for number in _STREAMS:
        os.dup2(sink, number)
    os.close(sink)
    reader = threading.Thread(target=raw.read, args=(source,), name="raw output", daemon=True)
    reader.start()
    try:
        yield raw
    except BaseException:
        _restore(saved)
        # The cause may still be on its way; processes that live on do not end their output.
        reader.join(1)
        raw.pass_on(2)
        raise
    _restore(saved)
    raw.pass_on(2)


def _restore(saved: dict[int, int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in saved.items():
        os.dup2(descriptor, number)
        os.close(descriptor)


def cause_in(lines: Sequence[str]) -> str | None:
    """The error of which all others that these lines tell are the consequence; None if they tell of none.

    >>> cause_in(["ERROR [core.py:1] ValueError: no KV cache", "RuntimeError: Engine core initialization failed."])
    'ValueError: no KV cache'
    """
    found = [match for line in lines if (match := _CAUSE.search(line)) and not _SYMPTOM.search(match[2])]
    return f"{found[-1][1]}: {found[-1][2].strip()}" if found else None
