"""Gathers the layouts of concurrent calls into batches for one worker thread. Knows nothing of models or tensors."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from prm.base import OnTokens, PRMError
from prm.families.contract import Layout

Scores = tuple[float, ...]
OnBatch = Callable[[Sequence[float]], None]
"""Receives, as a batch begins, the seconds that each of its layouts has waited; does not raise."""

_CONSIDERED = 256
"""A batch is chosen among this many of the oldest layouts: choosing must not take as long as reading."""


class Planned(NamedTuple):
    """A layout of the next batch."""

    place: int
    """Its index among the layouts to choose from."""
    tokens: int
    """How many tokens will be computed for it."""


class Reader(Protocol):
    """What the worker thread does; nothing else calls it."""

    def choose(self, layouts: Sequence[Layout]) -> list[Planned]:
        """Returns the next batch: at least one of `layouts`, which are sorted by age, the oldest first."""
        ...

    def read(self, layouts: Sequence[Layout]) -> list[Scores]:
        """Returns the scores of a chosen batch, which may be empty."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    """One `Batcher.read`, as the event loop and the worker thread share it."""

    loop: asyncio.AbstractEventLoop
    left: int
    """How many layouts are not read yet."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    computed: int = 0
    error: Exception | None = None

    def tell(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.news.set)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            self.left = 0


@dataclass(slots=True, eq=False)
class _Job:
    layout: Layout
    call: _Call
    due: float
    """The time from which on it no longer waits for other layouts to join it."""
    scores: Scores = ()


class Batcher:
    """Reads layouts in batches.

    Args:
        reader: reads them, on the worker thread only.
        name: of the worker thread.
        wait_s: seconds that a layout waits for others to join its batch while the thread has nothing to do.
        on_batch: called on the worker thread.
    """

    def __init__(self, reader: Reader, name: str, wait_s: float, on_batch: OnBatch | None = None) -> None:
        self.computed = 0
        """How many tokens all batches so far computed, the current one included."""
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._waiting: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        # The thread alone holds the reader: a closed batcher holds no model.
        self._thread = threading.Thread(target=self._work, args=(reader,), name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many layouts are in no batch yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Fails what waits, and returns when the batch that is being read is done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._fail(self._take_all(), PRMError("the reward model was closed"))

    async def read(self, layouts: Sequence[Layout], on_tokens: OnTokens | None) -> list[Scores]:
        call = _Call(asyncio.get_running_loop(), left=len(layouts))
        due = time.monotonic() + self._wait_s
        jobs = [_Job(layout, call, due) for layout in layouts]
        self._put(jobs)
        reported = 0
        try:
            while call.left and not call.error:
                await call.news.wait()
                call.news.clear()
                reported = _report(call, reported, on_tokens)
        finally:
            self._withdraw(call)
            _report(call, reported, on_tokens)
        if call.error:
            raise call.error
        return [job.scores for job in jobs]

    def _put(self, jobs: list[_Job]) -> None:
        with self._changed:
            if self._closed:
                raise PRMError("the reward model was closed")
            self._waiting += jobs
            self._changed.notify()

    def _withdraw(self, call: _Call) -> None:
        with self._changed:
            self._waiting = [job for job in self._waiting if job.call is not call]

    def _take_all(self) -> list[_Job]:
        with self._changed:
            jobs, self._waiting = self._waiting, []
        return jobs

    def _work(self, reader: Reader) -> None:
        while self._ready():
            batch: list[_Job] = []
            try:
                batch = self._next(reader)
                results = reader.read([job.layout for job in batch])
            except Exception as error:
                self._fail(batch or self._take_all(), PRMError(f"the reward model failed: {error}"))
            else:
                for job, scores in zip(batch, results, strict=True):
                    job.scores = scores
                self._done(batch)

    def _ready(self) -> bool:
        """Waits until there is something to read; false is the end."""
        with self._changed:
            while not self._closed:
                wait_s = self._waiting[0].due - time.monotonic() if self._waiting else None
                if wait_s is not None and wait_s <= 0:
                    return True
                self._changed.wait(wait_s)
        return False

    def _next(self, reader: Reader) -> list[_Job]:
        """Takes the next batch from the queue; it is empty if every layout was withdrawn in the meantime."""
        with self._changed:
            considered = self._waiting[:_CONSIDERED]
            planned = reader.choose([job.layout for job in considered]) if considered else []
            batch = [considered[place] for place, _ in planned]
            # A batch that begins is computed to its end, so its tokens count from here on.
            for job, (_, tokens) in zip(batch, planned, strict=True):
                job.call.computed += tokens
                self.computed += tokens
            chosen = set(map(id, batch))
            self._waiting = [job for job in self._waiting if id(job) not in chosen]
        if batch and self._on_batch:
            now = time.monotonic()
            self._on_batch([now - job.due + self._wait_s for job in batch])
        return batch

    def _done(self, jobs: Sequence[_Job]) -> None:
        with self._changed:
            for job in jobs:
                job.call.left -= 1
        for call in {id(job.call): job.call for job in jobs}.values():
            call.tell()

    def _fail(self, jobs: Sequence[_Job], error: PRMError) -> None:
        for job in jobs:
            job.call.error = error
        self._done(jobs)


def _report(call: _Call, reported: int, on_tokens: OnTokens | None) -> int:
    """Passes on the tokens that came after the first `reported` ones, and returns how many are reported now."""
    now = call.computed
    if on_tokens and now > reported:
        on_tokens(now - reported)
    return now
