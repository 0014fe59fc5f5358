"""One SQLite file of traces, bounded by age and size: the oldest go first. Knows rows, not what is in them."""

import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tts_server.traces.render import Row

FILE = "traces.sqlite3"
"""Its name in the data directory."""
WRITE_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 2.0
"""How long another process may hold the file before it is given up."""
SHARE = 8
"""The part of all room that one trace may take."""
PAGE = 100
"""Traces that are read at once where all are wanted."""
WAL_BYTES = 4 * 2**20
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
class Stored:
    """A trace as it was found."""

    row: int
    """Later ones have higher ones."""
    id: str
    head: str
    packed: bytes

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.packed)


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
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error:
            self._connection.close()
            raise

    def add(self, rows: Sequence[Row]) -> int:
        """Takes all or none of them, but for those that are too large; how many those are.

        Raises:
            sqlite3.Error: the disk is full, somebody else holds the file, or it is damaged.
        """
        packed = [(r.id, r.owner, r.created, r.strategy, r.head.decode(), zlib.compress(r.body, 1)) for r in rows]
        taken = [row for row in packed if len(row[4]) + len(row[5]) <= self._max_bytes // SHARE]
        with self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.executemany(
                "INSERT INTO traces (id, owner, created, strategy, head, body) VALUES (?, ?, ?, ?, ?, ?)",
                taken,
            )
            transaction.execute("DELETE FROM traces WHERE created < ?", [time.time() - self._max_age_s])
            while self._used() > self._max_bytes:
                transaction.execute("DELETE FROM traces WHERE row IN (SELECT row FROM traces ORDER BY row LIMIT 16)")
        return len(packed) - len(taken)

    def close(self) -> None:
        self._connection.close()

    def _used(self) -> int:
        pages, free, size = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


class Reader:
    """The file, read from outside of its writer; each call sees what was written until then.

    Raises:
        sqlite3.Error: somebody holds the file, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, id_: str, owner: str | None) -> Stored | None:
        """The trace of this id, where it is this owner's; None as owner is everybody."""
        found = self._select("id = ? AND (?2 IS NULL OR owner = ?2)", [id_, owner], 1)
        return found[0] if found else None

    def page(
        self, owner: str | None, limit: int, *, before: int | None = None, strategy: str | None = None
    ) -> list[Stored]:
        """The newest, of those whose row is less than `before`."""
        where = "(?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR row < ?2) AND (?3 IS NULL OR strategy = ?3)"
        return self._select(where, [owner, before, strategy], limit)

    def pages(
        self, owner: str | None, limit: int | None, *, before: int | None = None, strategy: str | None = None
    ) -> Iterator[list[Stored]]:
        """As `page`, a few at a time, all if there is no limit. Nothing is held open between them."""
        while limit is None or limit > 0:
            found = self.page(owner, PAGE if limit is None else min(limit, PAGE), before=before, strategy=strategy)
            if not found:
                return
            yield found
            before, limit = found[-1].row, None if limit is None else limit - len(found)

    def _select(self, where: str, values: Sequence[object], limit: int) -> list[Stored]:
        if not self._path.exists():
            return []
        address = f"file:{quote(str(self._path))}?mode=ro"
        with closing(sqlite3.connect(address, READ_TIMEOUT_S, uri=True)) as connection:
            found = connection.execute(
                f"SELECT row, id, head, body FROM traces WHERE {where} ORDER BY row DESC LIMIT {limit:d}", values
            )
            return [Stored(*row) for row in found]
