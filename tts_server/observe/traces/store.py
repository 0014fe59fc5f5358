"""The traces of one server: written down by a thread beside it, so that no request waits for a disk or fails by it.

What the thread does not get rid of, because the disk is full, slow or held by somebody, is dropped and counted.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from strategies.core.contracts import text_of
from strategies.core.plain_words import cause
from strategies.record.recorder import Recorder
from tts_server.config import Settings
from tts_server.errors import EngineUnavailable, InvalidRequest, NotFound, shown
from tts_server.observe.traces import view
from tts_server.observe.traces.database import FILE, Listed, Reader, Stored, Writer, recovers
from tts_server.observe.traces.feedback import Feedback, give, of
from tts_server.observe.traces.recording import Record
from tts_server.observe.traces.render import Row, row
from tts_server.request_state import RequestState
from tts_server.schema.ids import numbered

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64 * 2**20
"""What may wait to be written, as it is estimated."""
BATCH = 256
"""Traces of one transaction, at most."""
SMALL = 32
"""Samples of a search that is rendered when it ends: to hand it to the thread costs more, because each then waits for
the other to let go of Python's lock."""
LINGER_S = 0.1
"""What comes meanwhile is written together."""
TRIM_S = 600.0
"""How often old ones go where none comes."""
SETTLE_S = 2.0
"""How long a reader waits for what was told before it asked."""
DRAIN_S = 5.0
"""How long the server's end waits for what is not written yet."""
WARN_S = 10.0
"""Between two warnings."""


class Traces:
    """Takes records, and finds them again.

    Args:
        settings: where they are kept, how long, how many, and with how much in them.
    """

    def __init__(self, settings: Settings) -> None:
        self.dropped = 0
        """Records that could not be kept, since the start."""
        self._settings = settings
        self._path = settings.data_dir / FILE
        self._reader = Reader(self._path)
        self._changed = threading.Condition()
        self._pending: list[tuple[Record | Row, int]] = []
        self._bytes = self._taken = self._settled = 0
        self._hurry = self._closing = False
        self._warned_at: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def on(self) -> bool:
        """Whether searches are recorded."""
        return self._thread is not None and not self._closing

    def start(self) -> None:
        """From here on searches are recorded, unless the settings say otherwise. A disk that fails fails later."""
        if self._settings.traces != "off":
            # It must not keep a process alive whose disk hangs.
            self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Waits a little for what is not written yet."""
        if self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        await asyncio.to_thread(self._thread.join, DRAIN_S)
        if self._thread.is_alive():
            self._drop(self._taken - self._settled, "the server ends and the disk still works on them", now=True)
        elif self.dropped:
            log.warning("traces: %d were dropped", self.dropped)

    def record(self, state: RequestState, model: str, id: str) -> None:  # noqa: A002  its name in the API
        """Keeps a record of what a request runs under this id; where it is several searches, the later get numbers."""
        if not self.on:
            return
        for place, plan in enumerate(state.plans):
            recorder = Recorder(plan.task.prompt, plan.account.deadline.started)
            made = Record(numbered(id, place), model, plan, recorder, state.owner or "", state.id)
            recorder.on_end = partial(self.put, made)
            plan.account.recorder = recorder

    def put(self, record: Record) -> None:
        """Takes a record to be written; never waits and never fails."""
        made = self._rendered(record) if record.recorder.samples <= SMALL else record
        if made is None:
            return
        size = len(made.head) + len(made.body) if isinstance(made, Row) else _estimate(made)
        with self._changed:
            taken = self._bytes + size <= MAX_PENDING_BYTES and not self._closing
            if taken:
                self._pending.append((made, size))
                self._bytes += size
                self._taken += 1
                if len(self._pending) == 1:
                    self._changed.notify_all()
        if not taken:
            self._drop(1, "the server ends" if self._closing else "more are waiting than the disk takes")

    async def get(self, id: str, owner: str) -> dict[str, Any]:  # noqa: A002  its name in the API
        """One trace.

        Raises:
            NotFound: there is none of this id, or it is somebody else's.
            EngineUnavailable: the disk does not answer.
        """
        found = await self._read(lambda: self._reader.get(id, owner))
        if found is None:
            raise NotFound(f"There is no trace {shown(id)}.")
        said = await self._read(lambda: of(self._path, [id]))
        return await asyncio.to_thread(view.shown, found.head, found.body, said.get(id))

    async def judge(self, id: str, owner: str, feedback: Feedback) -> dict[str, Any]:  # noqa: A002  its name in the API
        """Keeps what a client says of an answer; returns that as it is kept.

        Raises:
            NotFound: there is no trace of this id, or it is somebody else's.
            EngineUnavailable: the disk does not take it.
        """
        body = feedback.body(full=self._settings.traces == "full")
        if not await self._read(lambda: give(self._path, id, owner, body)):
            raise NotFound(f"There is no trace {shown(id)}.")
        return body

    async def page(self, owner: str, limit: int, after: str | None, strategy: str | None) -> list[Listed]:
        """The newest traces, or those that came before the one of the id `after`.

        Raises:
            InvalidRequest: there is no such one.
            EngineUnavailable: the disk does not answer.
        """
        before = await self._row(after, owner)
        return await self._read(lambda: self._reader.page(owner, limit, before=before, strategy=strategy))

    async def export(
        self, owner: str, limit: int | None, after: str | None, strategy: str | None
    ) -> AsyncIterator[bytes]:
        """As `page`, but whole ones, each a line of JSON, and all if there is no limit.

        Raises:
            InvalidRequest: there is no such one as `after`.
            EngineUnavailable: the disk does not answer.
        """
        before = await self._row(after, owner)
        pages = self._reader.pages(owner, limit, before=before, strategy=strategy)
        first = await self._read(lambda: next(pages, None))
        return _lines(self._path, first, pages)

    async def _row(self, id_: str | None, owner: str) -> int | None:
        if id_ is None:
            return None
        found = await self._read(lambda: self._reader.get(id_, owner))
        if found is None:
            raise InvalidRequest(f"after: there is no trace {shown(id_)}.", param="after")
        return found.row

    async def _read(self, read: Callable[[], T]) -> T:
        if not self.on:
            raise NotFound("This server keeps no traces; it does with the setting traces: redacted or full.")
        try:
            return await asyncio.to_thread(self._settled_first, read)
        except (sqlite3.Error, OSError) as error:
            log.error("traces: %s: %s", self._path, cause(error))
            raise EngineUnavailable("The traces cannot be reached now: see the server's log.") from error

    def _settled_first(self, read: Callable[[], T]) -> T:
        with self._changed:
            target, self._hurry = self._taken, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= target, SETTLE_S)
        return read()

    def _work(self) -> None:
        """The thread: writes what comes until the end."""
        writer = self._write([], None)
        while (batch := self._next()) is not None:
            writer = self._write(batch, writer)
            with self._changed:
                self._settled += len(batch)
                self._changed.notify_all()
        if writer:
            writer.close()

    def _next(self) -> list[Record | Row] | None:
        """What to write now, which may be nothing; None at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._pending or self._closing, TRIM_S):
                return []
            if not self._pending:
                return None
            self._changed.wait_for(lambda: self._hurry or self._closing, LINGER_S)
            batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
            self._bytes -= sum(size for _, size in batch)
            self._hurry = self._hurry and bool(self._pending)
        return [made for made, _ in batch]

    def _write(self, batch: list[Record | Row], writer: Writer | None) -> Writer | None:
        """Writes them, and lets go of what is too old; a writer that can go on."""
        found = (made if isinstance(made, Row) else self._rendered(made) for made in batch)
        rows = [made for made in found if made]
        try:
            if not rows and not self._path.exists():
                return writer
            writer = writer or Writer(self._path, self._settings.traces_max_bytes, self._settings.traces_max_age_s)
            too_large = writer.add(rows)
        except (sqlite3.Error, OSError) as error:
            if rows:
                self._drop(len(rows), f"{self._path}: {cause(error)}")
            else:
                log.warning("traces: old ones stay for now: %s: %s", self._path, cause(error))
            # Without an open writer, what is there could not be read either while the disk is full.
            if writer is None or recovers(error):
                return writer
            writer.close()
            return None
        if too_large:
            self._drop(too_large, "a trace is too large for traces_max_bytes")
        return writer

    def _rendered(self, record: Record) -> Row | None:
        try:
            return row(record, "full" if self._settings.traces == "full" else "redacted")
        except Exception:
            log.exception("traces: %s cannot be written down", record.id)
            self._drop(1, "one cannot be written down")
            return None

    def _drop(self, count: int, why: str, *, now: bool = False) -> None:
        with self._changed:
            self.dropped += count
            at, since = time.monotonic(), self._warned_at
            if not now and since is not None and at - since < WARN_S:
                return
            self._warned_at = at
        log.warning("traces: %d dropped since the start, now because %s", self.dropped, why)


def _estimate(record: Record) -> int:
    """Bytes of memory, roughly."""
    usage, prompt = record.plan.account.usage, record.plan.task.prompt
    asked = sum(len(text_of(message)) for message in prompt.messages)
    return 2048 + asked + 8 * usage.completion_tokens + 512 * record.recorder.samples


async def _lines(path: Path, page: list[Stored] | None, rest: Iterator[list[Stored]]) -> AsyncIterator[bytes]:
    while page:
        said = await asyncio.to_thread(of, path, [stored.id for stored in page])
        for stored in page:
            yield await asyncio.to_thread(view.line, stored.head, stored.body, said.get(stored.id))
        page = await asyncio.to_thread(next, rest, None)
