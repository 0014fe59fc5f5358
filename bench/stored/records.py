"""What a run leaves behind: one JSON line a problem (how they came about: `bench.stored.manifest`).

Knows nothing of servers, tasks or grading. A line that stands is on the disk: each is flushed before the next, and a
line that a crash has torn is cut off before anything is written behind it.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from strategies.core.plain_words import reason

log = logging.getLogger(__name__)

RECORDS = "records.jsonl"
CUT = ("length", "content_filter")
"""Finish reasons of texts that go no further than something let them."""


class RecordError(Exception):
    """A file of records that cannot be read, written or gone on with; the message names the file and line."""


def _text(value: Any) -> Any:
    """Ids and answers are often written as numbers elsewhere."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One solution. `text` or `answer` is there; what else is None was not told."""

    text: str | None = None
    answer: Text | None = None
    """As extracted; None where none could be parsed."""
    step_scores: tuple[float, ...] | None = None
    score: float | None = None
    logprob: float | None = None
    """ln of the whole text's probability."""
    completion_tokens: int | None = None
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter` or `error`."""
    error: str | None = None
    """With finish reason `error`: what failed."""

    @property
    def truncated(self) -> bool:
        """Whether its text was cut, by a limit or a filter."""
        return self.finish_reason in CUT


@dataclass(frozen=True, slots=True)
class Usage:
    """What one problem cost; None is not told by the server."""

    prompt_tokens: int | None = None
    """The question's prompt, once."""
    engine_prompt_tokens: int | None = None
    """Prompt tokens over all branches, those from the prefix cache included."""
    cached_prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Generated over all branches."""
    prm_tokens: int | None = None
    prm_calls: int | None = None
    samples: int | None = None
    """Engine calls for a sample, of a whole solution or of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One problem, what was sampled for it, and what was returned."""

    id: Text = ""
    """Unique in its file; the line number where the file gives none."""
    question: str = ""
    gold: Text
    samples: tuple[SampleRecord, ...]
    """In the order of sampling."""
    answer: Text | None = None
    """Of the returned solution; None where none could be parsed."""
    correct: bool | None = None
    """None: not graded yet."""
    chosen: int | None = None
    """Which sample was returned; None where nothing tells."""
    confidence: float | None = None
    """In [0, 1], as the strategy told it."""
    stop_reason: str | None = None
    """The limit of the request's budget that ended the search, if one did."""
    level: Text | None = None
    subject: str | None = None
    usage: Usage = Usage()
    latency_s: float | None = None
    """From the request that was answered to its last byte; earlier attempts are not counted."""
    ttft_s: float | None = None
    """From the request to the first piece of the answer's text; only of streamed runs."""
    finished: str | None = None
    """When it was graded, ISO 8601, UTC."""
    error: str | None = None
    """Why the problem can have no answer on this server, such as a prompt that is too long; it counts as wrong."""


_RECORD = TypeAdapter(Record)


def records_of(path: Path) -> Path:
    """The file of records that a run's directory, or the file itself, stands for."""
    return path / RECORDS if path.is_dir() else path


def read_records(path: Path) -> list[Record]:
    """All records of a run's directory or of a JSONL file, in the file's order.

    A last line that a crash has torn is left out, and logged.

    Raises:
        RecordError: the file cannot be read, is empty, has a line that is no record, or the same id twice.
    """
    file = records_of(path)
    records: list[Record] = []
    lines: dict[str, int] = {}
    for number, line in _lines(file):
        record = _parsed(line, file, number)
        if record.id in lines:
            raise RecordError(f"{file}:{number}: id {record.id!r} is also in line {lines[record.id]}")
        lines[record.id] = number
        records.append(record)
    if not records:
        raise RecordError(f"{file}: there are no records in it")
    return records


def _lines(file: Path) -> Iterable[tuple[int, bytes]]:
    try:
        whole, _, rest = file.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error.strerror}") from error
    # Not splitlines: a text may hold other characters that it takes for the end of a line.
    lines = whole.split(b"\n") if whole else []
    if rest.strip():
        if _is_json(rest):
            lines.append(rest)
        else:
            log.warning("%s:%d: the last line is torn and left out", file, len(lines) + 1)
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(line: bytes, file: Path, number: int) -> Record:
    try:
        record = _RECORD.validate_json(line)
    except ValidationError as error:
        raise RecordError(f"{file}:{number}: {told(error)}") from None
    for i, sample in enumerate(record.samples):
        if sample.text is None and sample.answer is None and sample.error is None:
            raise RecordError(f"{file}:{number}: samples.{i} has neither text nor answer")
    if record.chosen is not None and not 0 <= record.chosen < len(record.samples):
        raise RecordError(f"{file}:{number}: chosen is {record.chosen} of {len(record.samples)} samples")
    return record if record.id else replace(record, id=str(number))


def told(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {reason(first)}" if where else reason(first)


class RecordWriter:
    """Appends records to a directory's file; one that was appended is on the disk.

    Raises:
        RecordError: the file cannot be opened or is being written by another run, or a write failed; the records
            before it stand.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / RECORDS
        self._file: BinaryIO | None = None

    def __enter__(self) -> "RecordWriter":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise RecordError(f"{self._path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise RecordError(f"{self._path}: another run is writing to it") from error
        _mend(file, self._path)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def append(self, record: Record) -> None:
        if self._file is None:
            raise RecordError(f"{self._path}: is not open")
        # A text from another server can hold half a surrogate pair, which UTF-8 cannot.
        line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False).encode(errors="replace") + b"\n"
        whole = self._file.seek(0, os.SEEK_END)
        try:
            write(self._file, line)
        except OSError as error:
            self._file.truncate(whole)
            raise RecordError(
                f"{self._path}: cannot be written: {error.strerror}; the records before stand, go on with --resume "
                "when this is mended"
            ) from error


def write(file: BinaryIO, data: bytes) -> None:
    """Writes all of it through to the disk."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    os.fsync(file.fileno())


def _mend(file: BinaryIO, path: Path) -> None:
    """Makes the file end with a whole line."""
    file.seek(0)
    whole, newline, rest = file.read().rpartition(b"\n")
    if not rest:
        return
    if _is_json(rest):
        write(file, b"\n")
    else:
        log.warning("%s: its last line was torn and is cut off", path)
        file.truncate(len(whole) + len(newline))
