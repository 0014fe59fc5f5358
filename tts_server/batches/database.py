"""One SQLite file that one process has to itself, of a known schema, that never grows beyond its limit."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strategies.core.plain_words import cause
from tts_server.errors import StorageFull

log = logging.getLogger(__name__)

VERSION = 2
SCHEMA = """
CREATE TABLE files (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    whole INTEGER NOT NULL
);
CREATE INDEX files_of_owner ON files (owner, row);
CREATE TABLE pieces (
    file TEXT NOT NULL,
    number INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX pieces_of_file ON pieces (file, number);
CREATE TABLE batches (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    metadata TEXT,
    keep_s INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    output_file_id TEXT,
    error_file_id TEXT,
    status TEXT NOT NULL,
    errors TEXT NOT NULL DEFAULT '[]',
    in_progress_at INTEGER,
    finalizing_at INTEGER,
    completed_at INTEGER,
    failed_at INTEGER,
    expired_at INTEGER,
    cancelling_at INTEGER,
    cancelled_at INTEGER,
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    spent_tokens INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX batches_of_owner ON batches (owner, row);
CREATE INDEX batches_by_status ON batches (status);
CREATE TABLE requests (
    batch TEXT NOT NULL,
    number INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX requests_of_batch ON requests (batch, number);
"""
"""A line of a batch is a row of `requests` until it is answered, and from then on a piece of the output or error file:
one or the other, by one transaction."""

FROM_1 = "ALTER TABLE batches ADD COLUMN spent_tokens INTEGER NOT NULL DEFAULT 0"
"""To schema 2."""


class StoreUnusable(Exception):
    """The file cannot be used at all; the message says why."""


class StoreTaken(StoreUnusable):
    """Another server uses it."""


class Database:
    """The open file.

    Args:
        path: made where it is missing, with its directory.
        max_bytes: what may be stored; what is freed can be used again.

    Raises:
        StoreTaken: another server uses the file.
        StoreUnusable: it cannot be opened or was written by a newer version.
        StorageFull: the disk has no room for what is written beside an open file.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # What clients ask and are told is nobody else's business.
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(f"{path} cannot be opened: {cause(error)}") from None
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._connection.close()
            if _is_full(error):
                raise StorageFull(f"Files and batches cannot be opened: {error}.") from None
            if _code(error) == sqlite3.SQLITE_BUSY:
                raise StoreTaken(f"another server uses {path}; give this one a data_dir of its own") from None
            raise StoreUnusable(f"{path} cannot be used: {error}") from None
        except StoreUnusable:
            self._connection.close()
            raise

    def _prepare(self, path: Path) -> None:
        # Two servers on one file would answer each line twice.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("BEGIN IMMEDIATE")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreUnusable(f"{path} has the schema {version}, this server knows {VERSION}; use the newer server")
        if version < VERSION:
            for statement in SCHEMA.split(";") if version == 0 else [FROM_1]:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """What a query finds."""
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: object) -> sqlite3.Row | None:
        """The first of it."""
        found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def change(self, sql: str, *values: object) -> int:
        """How many rows a statement changed."""
        return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the changes inside, or none.

        Raises:
            StorageFull: the disk does not take them.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                # Still open only where something failed, and some failures end it themselves.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if _is_full(error):
                raise StorageFull(f"Files and batches cannot be written: {error}.") from error
            raise

    def room(self) -> int:
        """Bytes that may still be stored."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(self._max_bytes - (pages - free) * size)

    def require(self, size: int) -> None:
        """Raises StorageFull where there is no room for as many bytes."""
        if size > self.room():
            raise StorageFull(
                f"There is no room for {size} more bytes: all files and batches together may have {self._max_bytes} "
                "bytes. Delete files that are no longer needed."
            )

    def give_back(self) -> None:
        """Hands space that was freed back to the disk; one that is too full for that gets it another time."""
        try:
            # `execute` would stop after the first page.
            self._connection.executescript("PRAGMA incremental_vacuum")
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            log.warning("batches: what was freed stays in the file for now, and is used again: %s", error)


def _is_full(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _code(error: sqlite3.Error) -> int:
    """SQLite's own code without its details; 0 if the error is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
