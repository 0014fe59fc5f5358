"""One SQLite file of traces, bounded by age and size: the oldest go first. Knows rows, not what is in them."""

import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tts_server.observe.traces.render import Row

FILE = "traces.sqlite3"
"""Its name in the data directory."""
WRITE_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 2.0
"""How long another process may hold the file before it is given up."""
SHARE = 8
"""The part of all room that one trace may take."""
PAGE, PAGE_BYTES = 100, 8 * 2**20
"""Whole traces that are read at once where all are wanted; of large ones, fewer."""
WAL_BYTES = 4 * 2**20
SMALL_BYTES = 4096
"""Less is stored as it is: to compress it takes ten times as long as to write it."""
_WANTED = "(?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR row < ?2) AND (?3 IS NULL OR strategy = ?3)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS traces (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    strategy TEXT NOT NULL,
    head TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS traces_by_age ON traces (created);
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list says of a trace."""

    row: int
    """Later ones have higher ones."""
    id: str
    head: str


@dataclass(frozen=True, slots=True)
class Stored(Listed):
    """A whole trace."""

    packed: bytes

    @property
    def body(self) -> bytes:
        # What is packed begins with zlib's own head.
        return self.packed if self.packed.startswith(b"{") else zlib.decompress(self.packed)


class Writer:
    """The file, open for writing.

    Args:
        path: made where it is missing, with its directory.
        max_bytes: what the traces may take.
        max_age_s: older ones go.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int, max_age_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        path.parent.mkdir(parents=True, exist_ok=True)
        # What clients ask and are told is nobody else's business.
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, WRITE_TIMEOUT_S, isolation_level=None)
        try:
            self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error:
            self._connection.close()
            raise

    def add(self, rows: Sequence[Row]) -> int:
        """Takes all or none of them, but for those that are too large, whose number it returns.

        What is too old or too much by then goes, also where there is nothing to take.

        Raises:
            sqlite3.Error: the disk is full, somebody else holds the file, or it is damaged.
        """
        packed = [(r.id, r.owner, r.created, r.strategy, r.head.decode(), _packed(r.body)) for r in rows]
        taken = [row for row in packed if len(row[4]) + len(row[5]) <= self._max_bytes // SHARE]
        with self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            if taken:
                # One statement: each gives Python's lock away and asks for it again, which the requests would wait for.
                places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(taken))
                transaction.execute(
                    f"INSERT INTO traces (id, owner, created, strategy, head, body) VALUES {places}",
                    [value for row in taken for value in row],
                )
            transaction.execute("DELETE FROM traces WHERE created < ?", [time.time() - self._max_age_s])
            while self._pages("page_count") - self._pages("freelist_count") > self._max_bytes:
                transaction.execute("DELETE FROM traces WHERE row IN (SELECT row FROM traces ORDER BY row LIMIT 16)")
            # What is freed is used again; only a file that was let grow larger once has something to give back.
            if self._pages("page_count") > self._max_bytes + self._max_bytes // SHARE:
                self._give_back()
        return len(packed) - len(taken)

    def close(self) -> None:
        self._connection.close()

    def _give_back(self) -> None:
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        for _ in range(free):
            # Each goes one page far.
            self._connection.execute("PRAGMA incremental_vacuum")

    def _pages(self, which: str) -> int:
        """Bytes of pages that SQLite counts."""
        (count,) = self._connection.execute(f"PRAGMA {which}").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(count * size)


def _packed(body: bytes) -> bytes:
    return body if len(body) < SMALL_BYTES else zlib.compress(body, 1)


def recovers(error: Exception) -> bool:
    """Whether a writer can go on some time after this error: the disk is full, or somebody holds the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)


class Reader:
    """The file, read from outside of its writer; each call sees what was written until then.

    Raises:
        sqlite3.Error: somebody holds the file, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, id_: str, owner: str | None) -> Stored | None:
        """The trace of this id, where it is this owner's; None as owner is everybody."""
        found = self._select("row, id, head, body", "id = ?3 AND (?1 IS NULL OR owner = ?1)", [owner, None, id_], 1)
        return Stored(*found[0]) if found else None

    def page(
        self, owner: str | None, limit: int, *, before: int | None = None, strategy: str | None = None
    ) -> list[Listed]:
        """The newest, of those whose row is less than `before`."""
        return [Listed(*row) for row in self._select("row, id, head", _WANTED, [owner, before, strategy], limit)]

    def pages(
        self, owner: str | None, limit: int | None, *, before: int | None = None, strategy: str | None = None
    ) -> Iterator[list[Stored]]:
        """As `page`, but whole ones, a few at a time, all if there is no limit. Nothing is held open between them."""
        while limit is None or limit > 0:
            few = PAGE if limit is None else min(limit, PAGE)
            count = self._fitting(self._select("LENGTH(body)", _WANTED, [owner, before, strategy], few))
            found = self._select("row, id, head, body", _WANTED, [owner, before, strategy], count)
            if not found:
                return
            yield (page := [Stored(*row) for row in found])
            before, limit = page[-1].row, None if limit is None else limit - len(page)

    @staticmethod
    def _fitting(sizes: Sequence[tuple[int]]) -> int:
        """How many of the first ones are read at once; one at least."""
        return max(1, sum(total <= PAGE_BYTES for total in accumulate(size for (size,) in sizes)))

    def _select(self, columns: str, where: str, values: Sequence[object], limit: int) -> list[Any]:
        if not self._path.exists():
            return []
        address = f"file:{quote(str(self._path))}?mode=ro"
        with closing(sqlite3.connect(address, READ_TIMEOUT_S, uri=True)) as connection:
            # The writer may have only begun to make it.
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'traces'").fetchone():
                return []
            return connection.execute(
                f"SELECT {columns} FROM traces WHERE {where} ORDER BY row DESC LIMIT {limit:d}", values
            ).fetchall()
