"""The time until a server answers: what it does, for how long, and its end by a signal."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
QUIET_S, LINE_S = 3.0, 12.0
"""Where there is no terminal: seconds until the first line, and between lines."""
GRACE_S = 3.0
"""Seconds that what is under way has to end when a signal has come: an import, say, cannot be told to."""


class Loading:
    """Shows one line that is kept up to date on a terminal; elsewhere a line now and then. It is a `Report`.

    Args:
        console: where to.
        as_log: whether a line is a record of the log.
    """

    def __init__(self, console: Console, *, as_log: bool = False) -> None:
        self.signal: int | None = None
        """The one that has ended the start."""
        self.console = console
        self.as_log = as_log
        self._begun = time.monotonic()
        self._doing = "starting"
        self._done: tuple[int, int | None] | None = None
        self._told: set[str] = set()
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="loading", daemon=True)
        self._spinner = Spinner("dots")
        self._live = Live(
            console=console,
            get_renderable=self._rendered,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Takes what is done now, and how much of it; without `done` it is a line of its own."""
        if done is None:
            self.say(text)
            return
        if text not in self._told and not self._shows:
            self._told.add(text)
            self.say(text)
        self._doing, self._done = text, (done, total)

    def begin(self, text: str) -> None:
        """Takes what is done from now on."""
        self._doing, self._done = text, None

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.as_log:
            log.info("%s", text)
        else:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """The end of the line, and of the start."""
        self._closed.set()
        self._live.stop()

    def end(self, number: int, frame: FrameType | None = None) -> None:
        """A signal before the start is over: says so, and ends this process with all that it has started.

        What is under way gets a moment to end in an orderly way, if it can; see `interrupted`.
        """
        self.interrupted(number)
        self._leave()

    def interrupted(self, number: int) -> None:
        """Says that the start is over; the second time, or when the moment has passed, the process ends."""
        if self.signal is not None:
            self._leave()
        self.signal = number
        self.close()
        self.say(f"ended while {self.doing}")
        timer = threading.Timer(GRACE_S, self._leave)
        timer.daemon = True
        timer.start()

    @property
    def doing(self) -> str:
        """What is done, how far it is, and the seconds since the start."""
        amount = ""
        if self._done:
            done, total = self._done
            amount = f": {decimal(done)}" + (f" of {decimal(total)}" if total else "")
        return f"{self._doing}{amount} · {time.monotonic() - self._begun:.0f} s"

    @property
    def code(self) -> int:
        """The exit code after a signal, as shells have it."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Self:
        if self._shows:
            self._live.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _shows(self) -> bool:
        return self.console.is_terminal and not self.as_log

    def _tick(self) -> None:
        pause_s = QUIET_S
        while not self._closed.wait(pause_s):
            self.say(self.doing)
            pause_s = LINE_S

    def _rendered(self) -> Spinner:
        self._spinner.update(text=Text(self.doing, no_wrap=True, overflow="ellipsis"))
        return self._spinner

    def _leave(self) -> None:
        kill_children()
        os._exit(self.code)


@contextmanager
def ended_by_signals(loading: Loading) -> Iterator[None]:
    """Until an event loop takes the signals over, each of them ends the start.

    No exception is raised for it: it would come up in the midst of somebody's import, and be caught there.
    """
    before = {number: signal.signal(number, loading.end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_children() -> None:
    """Ends the processes that this one has started, and theirs.

    The tracker of shared memory is left: it cleans up behind the others, and then ends by itself.
    """
    for process in _descendants(os.getpid()):
        with suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)


def _descendants(parent: int) -> list[int]:
    """The system tells them on Linux only; elsewhere nothing that is started here outlives its parent for long."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
    return found
