"""Gathers what concurrent calls want read into batches for one worker thread. Knows nothing of models or tensors."""

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
"""Told of each batch that begins, by the seconds for which each of its layouts has waited; does not raise."""

_CONSIDERED = 256
"""Waiting layouts among which a batch is chosen, the oldest: choosing must not take as long as reading."""


class Planned(NamedTuple):
    """A layout of the next batch."""

    place: int
    """Among those to choose from."""
    tokens: int
    """That will be computed for it."""


class Reader(Protocol):
    """What the worker thread does; nothing else calls it."""

    def choose(self, layouts: Sequence[Layout]) -> list[Planned]:
        """The next batch: at least one of `layouts`, the oldest of which comes first."""
        ...

    def read(self, layouts: Sequence[Layout]) -> list[Scores]:
        """The scores of a chosen batch, which may be empty."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    """One `Batcher.read`, as the event loop and the worker thread share it."""

    loop: asyncio.AbstractEventLoop
    left: int
    """Layouts that are not read yet."""
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
    """When it waits no longer for others to join it."""
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
        """Tokens of all batches that were begun."""
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
        """Layouts that are not begun."""
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
        told = 0
        try:
            while call.left and not call.error:
                await call.news.wait()
                call.news.clear()
                told = _told(call, told, on_tokens)
        finally:
            self._withdraw(call)
            _told(call, told, on_tokens)
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
        """The next batch; empty if all was withdrawn in the meantime."""
        with self._changed:
            considered = self._waiting[:_CONSIDERED]
            planned = reader.choose([job.layout for job in considered]) if considered else []
            batch = [considered[place] for place, _ in planned]
            # A batch that has begun is computed to its end, so its tokens count from here.
            for job, (_, tokens) in zip(batch, planned, strict=True):
                job.call.computed += tokens
                self.computed += tokens
            taken = set(map(id, batch))
            self._waiting = [job for job in self._waiting if id(job) not in taken]
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


def _told(call: _Call, before: int, on_tokens: OnTokens | None) -> int:
    """Tells what was computed since `before`; what is told now."""
    now = call.computed
    if on_tokens and now > before:
        on_tokens(now - before)
    return now
