"""Files in the store: written and read in pieces, each owner's for itself."""

import sqlite3
from typing import NamedTuple

from tts_server.batches.database import Database
from tts_server.batches.records import File, Piece
from tts_server.errors import NotFound, shown

PIECE_BYTES = 2**20
"""What is written or read in one go."""


class FilePage(NamedTuple):
    """A part of a list."""

    files: list[File]
    has_more: bool


class Files:
    """The files of one database; whoever calls has it to itself meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Of uploads that an end of the server cut off.
        self._drop("whole = 0")

    def add(self, file: File) -> None:
        """Begins a file, which nobody sees until it is `finish`ed.

        Raises:
            StorageFull: it does not fit.
        """
        self._database.require(file.bytes)
        with self._database.transaction():
            self._database.change(
                "INSERT INTO files (id, owner, purpose, filename, bytes, created_at, expires_at, whole) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                *(file.id, file.owner, file.purpose, file.filename, file.bytes, file.created_at, file.expires_at),
            )

    def append(self, id_: str, piece: Piece) -> None:
        self._database.require(len(piece.data))
        with self._database.transaction():
            self._database.change("INSERT INTO pieces (file, number, data) VALUES (?, ?, ?)", id_, *piece)

    def finish(self, id_: str) -> None:
        with self._database.transaction():
            self._database.change("UPDATE files SET whole = 1 WHERE id = ?", id_)

    def get(self, id_: str, owner: str, now: float, param: str = "file_id") -> File:
        """One of the owner's files.

        Raises:
            NotFound: there is none of that id, or not any more.
        """
        row = self._database.row(
            "SELECT * FROM files WHERE id = ? AND owner = ? AND whole AND expires_at > ?", id_, owner, now
        )
        if row is None:
            raise NotFound(f"There is no file {shown(id_)}.", param=param)
        return _file(row)

    def page(
        self, owner: str, purpose: str | None, now: float, *, limit: int, after: str | None, ascending: bool
    ) -> FilePage:
        """The owner's files by their age, from behind the one named `after`."""
        order, beyond, start = ("ASC", ">", 0) if ascending else ("DESC", "<", 2**62)
        if after is not None:
            self.get(after, owner, now, "after")
            start = self._database.rows("SELECT row FROM files WHERE id = ?", after)[0]["row"]
        rows = self._database.rows(
            f"SELECT * FROM files WHERE owner = ? AND whole AND expires_at > ? AND row {beyond} ? "
            f"AND purpose = IFNULL(?, purpose) ORDER BY row {order} LIMIT ?",
            *(owner, now, start, purpose, limit + 1),
        )
        return FilePage([_file(row) for row in rows[:limit]], len(rows) > limit)

    def pieces(self, id_: str, after: int) -> list[Piece]:
        """The next pieces behind a number, about `PIECE_BYTES` of them; none at the file's end."""
        numbers: list[int] = []
        size = 0
        rows = self._database.rows(
            "SELECT number, LENGTH(data) AS size FROM pieces WHERE file = ? AND number > ? ORDER BY number LIMIT 1000",
            *(id_, after),
        )
        for row in rows:
            if numbers and size + row["size"] > PIECE_BYTES:
                break
            numbers.append(row["number"])
            size += row["size"]
        if not numbers:
            return []
        found = self._database.rows(
            "SELECT number, data FROM pieces WHERE file = ? AND number BETWEEN ? AND ? ORDER BY number",
            *(id_, numbers[0], numbers[-1]),
        )
        return [Piece(row["number"], row["data"]) for row in found]

    def delete(self, id_: str, owner: str, now: float) -> None:
        """Forgets one of the owner's files.

        Raises:
            NotFound: there is none of that id.
        """
        self.get(id_, owner, now)
        self._drop("id = ?", id_)

    def forget(self, id_: str) -> None:
        """Drops a file that was not finished."""
        self._drop("id = ? AND NOT whole", id_)

    def drop_expired(self, now: float) -> None:
        """Forgets what is over its time."""
        self._drop("whole AND expires_at <= ?", now)

    def _drop(self, which: str, *values: object) -> None:
        with self._database.transaction():
            self._database.change(f"DELETE FROM pieces WHERE file IN (SELECT id FROM files WHERE {which})", *values)
            self._database.change(f"DELETE FROM files WHERE {which}", *values)
        self._database.give_back()


def _file(row: sqlite3.Row) -> File:
    return File(
        row["id"],
        row["owner"],
        row["purpose"],
        row["filename"],
        row["bytes"],
        row["created_at"],
        row["expires_at"],
    )
