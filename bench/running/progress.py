"""How far a run is: accuracy with its interval, tokens, time left; a line a minute where there is no terminal."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.reporting.figures import accuracy, span
from bench.stored.records import Record

LINE_EVERY_S = 60.0


class RunProgress:
    """Shows a run as it goes, for `bench.running.runner.run`.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.fields[told]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", start=False, total=None, told="", left="?")
        self._problems = self._done = self._earlier = self._correct = self._tokens = 0
        self._began = self._told_at = time.monotonic()

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, done: Sequence[Record], problems: int) -> None:
        self._problems, self._earlier, self._began = problems, len(done), time.monotonic()
        for record in done:
            self._count(record)
        self._update()

    def add(self, record: Record) -> None:
        self._count(record)
        self._update()
        if not self._console.is_terminal and time.monotonic() - self._told_at >= LINE_EVERY_S:
            self._told_at = time.monotonic()
            self.say(f"{self._done}/{self._problems}: {self._told()}, {self._left()} left")

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _count(self, record: Record) -> None:
        self._done += 1
        self._correct += bool(record.correct)
        self._tokens += record.usage.completion_tokens or 0

    def _update(self) -> None:
        self._bar.update(self._task, completed=self._done, total=self._problems, told=self._told(), left=self._left())

    def _told(self) -> str:
        return f"{accuracy(self._correct, self._done)}, {self._tokens:,} tokens"

    def _left(self) -> str:
        mine = self._done - self._earlier
        if not mine:
            return "?"
        seconds = (time.monotonic() - self._began) / mine * (self._problems - self._done)
        return span(seconds)
