"""Batches in the store: what is asked, what is answered, and how each came to its end."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import orjson

from tts_server.batches.database import Database
from tts_server.batches.records import (
    Answer,
    Batch,
    Ending,
    LineError,
    Piece,
    Request,
    Tokens,
    unanswered,
)
from tts_server.errors import InvalidRequest, NotFound, shown

AT_ONCE = 1000
"""Rows that one transaction writes, so that others can have the database in between."""
_TOLD = {
    "expired": ("batch_expired", "This request was not answered before the batch's completion window ended."),
    "cancelled": ("batch_cancelled", "This request was not answered before the batch was cancelled."),
}


class BatchPage(NamedTuple):
    """A part of a list."""

    batches: list[Batch]
    has_more: bool


class Jobs:
    """The batches of one database; whoever calls has it to itself meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: Batch) -> None:
        """Keeps a new batch.

        Raises:
            StorageFull: it does not fit.
        """
        metadata = orjson.dumps(batch.metadata).decode()
        self._database.require(len(metadata))
        with self._database.transaction():
            self._database.change(
                "INSERT INTO batches (id, owner, model, endpoint, input_file_id, completion_window, metadata, keep_s, "
                "created_at, expires_at, output_file_id, error_file_id, status) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(batch.id, batch.owner, batch.model, batch.endpoint, batch.input_file_id, batch.completion_window),
                *(metadata, batch.keep_s, batch.created_at, batch.expires_at),
                *(batch.output_file_id, batch.error_file_id, batch.status),
            )

    def get(self, id_: str, owner: str, param: str = "batch_id") -> Batch:
        """One of the owner's batches.

        Raises:
            NotFound: there is none of that id.
        """
        row = self._database.row("SELECT * FROM batches WHERE id = ? AND owner = ?", id_, owner)
        if row is None:
            raise NotFound(f"There is no batch {shown(id_)}.", param=param)
        return _batch(row)

    def page(self, owner: str, *, limit: int, after: str | None) -> BatchPage:
        """The owner's batches, the newest first, from behind the one named `after`."""
        start = 2**62
        if after is not None:
            self.get(after, owner, "after")
            start = self._database.rows("SELECT row FROM batches WHERE id = ?", after)[0]["row"]
        rows = self._database.rows(
            "SELECT * FROM batches WHERE owner = ? AND row < ? ORDER BY row DESC LIMIT ?", owner, start, limit + 1
        )
        return BatchPage([_batch(row) for row in rows[:limit]], len(rows) > limit)

    def open(self) -> list[Batch]:
        """What has not come to its end, the oldest first."""
        rows = self._database.rows(
            "SELECT * FROM batches WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') "
            "ORDER BY row"
        )
        return [_batch(row) for row in rows]

    def cancel(self, id_: str, owner: str, now: int) -> Batch:
        """Marks a batch as to be cancelled; one that is so already is left so.

        Raises:
            NotFound: there is none of that id.
            InvalidRequest: it has ended, or is about to.
        """
        batch = self.get(id_, owner)
        if batch.status in ("finalizing", "completed", "failed", "expired"):
            raise InvalidRequest(f"The batch cannot be cancelled any more: it is {batch.status}.", param="batch_id")
        with self._database.transaction():
            self._database.change(
                "UPDATE batches SET status = 'cancelling', cancelling_at = ? "
                "WHERE id = ? AND status IN ('validating', 'in_progress')",
                *(now, id_),
            )
        return self.get(id_, owner)

    def drop_requests(self, id_: str) -> None:
        """Forgets what a validation found that did not come to its end."""
        with self._database.transaction():
            self._database.change("DELETE FROM requests WHERE batch = ?", id_)

    def add_requests(self, id_: str, requests: Sequence[Request]) -> bool:
        """Keeps lines of a batch that is being validated; says whether it still is.

        Raises:
            StorageFull: they do not fit.
        """
        self._database.require(sum(len(request.body) for request in requests))
        with self._database.transaction():
            if self._database.row("SELECT 1 FROM batches WHERE id = ? AND status = 'validating'", id_) is None:
                return False
            for request in requests:
                self._database.change(
                    "INSERT INTO requests (batch, number, custom_id, body) VALUES (?, ?, ?, ?)", id_, *request
                )
        return True

    def begin(self, id_: str, now: int) -> None:
        """The lines are all there and right: they can be answered."""
        with self._database.transaction():
            self._database.change(
                "UPDATE batches SET status = 'in_progress', in_progress_at = ?, "
                "total = (SELECT COUNT(*) FROM requests WHERE batch = id) WHERE id = ? AND status = 'validating'",
                *(now, id_),
            )

    def fail(self, id_: str, errors: Sequence[LineError], now: int) -> None:
        """The lines are not right: none is answered."""
        told = orjson.dumps([error._asdict() for error in errors]).decode()
        with self._database.transaction():
            self._database.change(
                "UPDATE batches SET status = 'failed', failed_at = ?, errors = ? "
                "WHERE id = ? AND status = 'validating'",
                *(now, told, id_),
            )
            self._database.change("DELETE FROM requests WHERE batch = ?", id_)

    def next(self, id_: str, but: Collection[int]) -> Request | None:
        """The batch's first request without an answer that is not one of some numbers."""
        marks = ",".join("?" * len(but))
        row = self._database.row(
            f"SELECT number, custom_id, body FROM requests WHERE batch = ? AND number NOT IN ({marks}) "
            "ORDER BY number LIMIT 1",
            *(id_, *but),
        )
        return None if row is None else Request(*row)

    def answer(self, batch: Batch, request: Request, answer: Answer, cost: int = 0) -> bool:
        """Puts an answer in its request's place; says whether the request still waited for one.
        Its cost in tokens is paid from what the lines share.

        Raises:
            StorageFull: the disk is full; the request waits on.
        """
        file = batch.output_file_id if answer.good else batch.error_file_id
        spent = Tokens.of(orjson.loads(answer.body))
        with self._database.transaction():
            if not self._take(batch.id, request.number):
                return False
            self._write(file, Piece(request.number, answer.line(request.custom_id)))
            counted = "completed" if answer.good else "failed"
            self._database.change(
                f"UPDATE batches SET {counted} = {counted} + 1, input_tokens = input_tokens + ?, "
                "cached_tokens = cached_tokens + ?, output_tokens = output_tokens + ?, "
                "reasoning_tokens = reasoning_tokens + ?, spent_tokens = spent_tokens + ? WHERE id = ?",
                *(spent.input, spent.cached, spent.output, spent.reasoning, cost, batch.id),
            )
        return True

    def refuse(self, batch: Batch, request: Request, code: str, message: str) -> None:
        """Puts into a request's place why it is not answered.

        Raises:
            StorageFull: the disk is full; the request waits on.
        """
        with self._database.transaction():
            if self._take(batch.id, request.number):
                self._write(batch.error_file_id, Piece(request.number, unanswered(request.custom_id, code, message)))
                self._database.change("UPDATE batches SET failed = failed + 1 WHERE id = ?", batch.id)

    def pay(self, id_: str, cost: int) -> None:
        """Takes from what a batch's lines share what one has cost that has no answer."""
        with self._database.transaction():
            self._database.change("UPDATE batches SET spent_tokens = spent_tokens + ? WHERE id = ?", cost, id_)

    def latest(self, batch: Batch, limit: int) -> list[bytes]:
        """Lines of the output so far, the last ones."""
        rows = self._database.rows(
            "SELECT data FROM pieces WHERE file = ? ORDER BY number DESC LIMIT ?", batch.output_file_id, limit
        )
        return [row["data"] for row in reversed(rows)]

    def finalize(self, id_: str, now: int) -> None:
        """All is answered, and the files come next."""
        with self._database.transaction():
            self._database.change(
                "UPDATE batches SET status = 'finalizing', finalizing_at = ? WHERE id = ? AND status = 'in_progress'",
                *(now, id_),
            )

    def end(self, batch: Batch, ending: Ending, now: int) -> bool:
        """Goes a step towards a batch's end; says whether it is reached.

        What has no answer is told so in the error file, then the files are made.
        """
        with self._database.transaction():
            if not self._give_up(batch, ending):
                return False
            self._make_file("output", batch.output_file_id, batch, now)
            self._make_file("error", batch.error_file_id, batch, now)
            self._database.change(f"UPDATE batches SET status = ?, {ending}_at = ? WHERE id = ?", ending, now, batch.id)
        return True

    def _give_up(self, batch: Batch, ending: Ending) -> bool:
        """Writes that some requests are not answered any more; says whether those were all."""
        (total,) = self._database.rows("SELECT total FROM batches WHERE id = ?", batch.id)[0]
        if total == 0:
            # Its lines were not looked through to the end, so none was ever taken on.
            self._database.change("DELETE FROM requests WHERE batch = ?", batch.id)
            return True
        rows = self._database.rows(
            "SELECT number, custom_id FROM requests WHERE batch = ? ORDER BY number LIMIT ?", batch.id, AT_ONCE
        )
        for row in rows:
            self._take(batch.id, row["number"])
            self._write(batch.error_file_id, Piece(row["number"], unanswered(row["custom_id"], *_TOLD[ending])))
        self._database.change("UPDATE batches SET failed = failed + ? WHERE id = ?", len(rows), batch.id)
        return len(rows) < AT_ONCE

    def _make_file(self, kind: str, id_: str | None, batch: Batch, now: int) -> None:
        (size,) = self._database.rows("SELECT SUM(LENGTH(data)) FROM pieces WHERE file = ?", id_)[0]
        if not size:
            self._database.change(f"UPDATE batches SET {kind}_file_id = NULL WHERE id = ?", batch.id)
            return
        self._database.change(
            "INSERT INTO files (id, owner, purpose, filename, bytes, created_at, expires_at, whole) "
            "VALUES (?, ?, 'batch_output', ?, ?, ?, ?, 1)",
            *(id_, batch.owner, f"{batch.id}_{kind}.jsonl", size, now, now + batch.keep_s),
        )

    def _take(self, id_: str, number: int) -> bool:
        return self._database.change("DELETE FROM requests WHERE batch = ? AND number = ?", id_, number) == 1

    def _write(self, file: str | None, piece: Piece) -> None:
        self._database.change("INSERT INTO pieces (file, number, data) VALUES (?, ?, ?)", file, *piece)


def _batch(row: sqlite3.Row) -> Batch:
    fields: dict[str, Any] = dict(row)
    tokens = [fields.pop(f"{kind}_tokens") for kind in ("input", "cached", "output", "reasoning")]
    del fields["row"]
    fields["metadata"] = orjson.loads(fields["metadata"])
    fields["errors"] = tuple(LineError(**error) for error in orjson.loads(fields["errors"]))
    return Batch(**fields, tokens=Tokens(*tokens))
