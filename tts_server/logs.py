"""What log lines look like, and what they may say: nothing of what was asked and answered, unless the operator wants.

Errors of any library may quote what they stumbled over, so a traceback is logged with its places and without its words.
"""

import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

import orjson

from tts_server.request_state import current
from tts_server.trace_place import trace_place

_LEFT_OUT = "(left out; the setting log_prompts shows it)"


@dataclass(frozen=True, slots=True)
class Private:
    """A part of a log line that may quote what was asked or answered."""

    text: str

    def __str__(self) -> str:
        return _LEFT_OUT


class LogFormatter(logging.Formatter):
    """Formats records for the operator's eyes; what belongs to a request begins with its id and its owner.

    Args:
        prompts: whether what was asked and answered may be seen.
        stamped: whether time and level come first.
    """

    def __init__(self, *, prompts: bool, stamped: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s" if stamped else "%(message)s", "%Y-%m-%dT%H:%M:%S%z")
        self._prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        self._censor(record)
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name in the standard library
        if state := current.get():
            record.message = f"[{state.log_prefix}] {record.message}"
        return super().formatMessage(record)

    def _censor(self, record: logging.LogRecord) -> None:
        if self._prompts and isinstance(record.args, tuple):
            record.args = tuple(arg.text if isinstance(arg, Private) else arg for arg in record.args)
        elif not self._prompts and record.name == "asyncio":
            # Its further lines hold the error of a task that nobody awaited.
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        # Another handler's formatter may have left a whole traceback here.
        record.exc_text = None

    def formatException(  # noqa: N802  the name in the standard library
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return super().formatException(ei) if self._prompts or ei[1] is None else outline(ei[1])


class JSONFormatter(LogFormatter):
    """Formats each record as one line of JSON, for whatever gathers logs."""

    def format(self, record: logging.LogRecord) -> str:
        self._censor(record)
        state, place = current.get(), trace_place.get()
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": state.id if state else None,
            "owner": (state.owner or None) if state else None,
            "trace_id": place.trace_id if place else None,
            "span_id": place.span_id if place else None,
            "error": self.formatException(record.exc_info) if record.exc_info else None,
            "stack": self.formatStack(record.stack_info) if record.stack_info else None,
        }
        # A text may hold half of a surrogate pair, which is no JSON.
        return orjson.dumps({key: _whole(value) for key, value in said.items() if value is not None}).decode()


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def outline(error: BaseException) -> str:
    """A traceback, without the messages of its errors."""
    told = [_frames(each) + f"{_name(each)} {_LEFT_OUT}" for each in reversed(list(_chain(error)))]
    return "\n\nwhich led to:\n\n".join(told)


def kinds(error: BaseException) -> str:
    """The classes of an error and of what it came from."""
    return " from ".join(_name(each) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        hidden = error.__suppress_context__ or error.__cause__ is not None
        error = error.__cause__ if hidden else error.__context__


def _frames(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    groups = "".join(f"  one of its errors:\n{_indented(outline(each))}\n" for each in inner)
    return f"Traceback (most recent call last):\n{frames}{groups}"


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
