"""What clients say of answers, kept beside the answers' traces and gone with them: of each, the last word counts."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

WRITE_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 2.0
"""How long somebody else may hold the file before it is given up."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (trace TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS feedback_goes AFTER DELETE ON traces
    BEGIN DELETE FROM feedback WHERE trace = old.id; END;
"""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Whether an answer was right, or how good it was."""

    correct: bool | None = None
    score: float | None = None
    """In [0, 1], where `correct` is not given."""
    comment: str | None = None
    created: float = field(default_factory=time.time)

    def body(self, *, full: bool) -> dict[str, Any]:
        """As it is kept and shown; the comment only where texts may be kept."""
        said = {"created": self.created, "correct": self.correct, "score": self.score}
        return said | {"comment": self.comment if full else None}


def give(path: Path, trace: str, owner: str, body: dict[str, Any]) -> bool:
    """Keeps a feedback in place of the trace's last one; False if there is no such trace, or it is somebody else's.

    Raises:
        sqlite3.Error: the disk is full, somebody else holds the file, or it is damaged.
    """
    if not path.exists():
        return False
    address = f"file:{quote(str(path))}?mode=rw"
    with closing(sqlite3.connect(address, WRITE_TIMEOUT_S, isolation_level=None, uri=True)) as connection:
        connection.executescript(_SCHEMA)
        with connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            kept = transaction.execute(
                "REPLACE INTO feedback SELECT id, ?3 FROM traces WHERE id = ?1 AND owner = ?2",
                [trace, owner, orjson.dumps(body).decode()],
            )
            return kept.rowcount > 0


def of(path: Path, traces: Sequence[str]) -> dict[str, str]:
    """What was said of each of these traces, of those of which anything was.

    Raises:
        sqlite3.Error: somebody holds the file, or it is damaged.
    """
    if not path.exists():
        return {}
    address = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(address, READ_TIMEOUT_S, uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'feedback'").fetchone():
            return {}
        places = ", ".join("?" * len(traces))
        found = connection.execute(f"SELECT trace, body FROM feedback WHERE trace IN ({places})", traces)
        return dict(found.fetchall())
