"""What is kept of files and batches, and how OpenAI writes it."""

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Ending = Literal["completed", "expired", "cancelled"]
Purpose = Literal["batch", "batch_output"]

KEEP_S = 30 * 24 * 3600
"""How long a file is kept if nothing else was asked for."""


BUDGET_KEY = "tts_total_tokens"
"""In a batch's metadata: tokens that its lines may cost together, the reward model's among them."""
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")


def total_tokens(metadata: Mapping[str, str] | None) -> int | None:
    """The budget that a batch's metadata names; None where it names none.

    Raises:
        ValueError: it is no number of tokens.
    """
    told = (metadata or {}).get(BUDGET_KEY)
    if told is None:
        return None
    if not _NUMBER.fullmatch(told):
        raise ValueError("a whole number of tokens above 0, as a string")
    return int(told)


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class File:
    """A file; its bytes are in pieces."""

    id: str
    owner: str
    purpose: Purpose
    filename: str
    """Data of the client's; never a path here."""
    bytes: int
    created_at: int
    expires_at: int

    @property
    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Piece(NamedTuple):
    """A part of a file; the parts in the order of their numbers are the file."""

    number: int
    data: bytes


class Request(NamedTuple):
    """A line of a batch that has no answer yet."""

    number: int
    """The line's, from 1."""
    custom_id: str
    body: bytes
    """JSON."""


class LineError(NamedTuple):
    """Why a batch cannot be run."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What answers cost, as OpenAI counts it."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    @classmethod
    def of(cls, body: Any) -> "Tokens":
        """Those of an answer's `usage`, under chat's names or those of `/v1/responses`."""
        usage = _dict(body, "usage")
        read = _dict(usage, "prompt_tokens_details") or _dict(usage, "input_tokens_details")
        written = _dict(usage, "completion_tokens_details") or _dict(usage, "output_tokens_details")
        return cls(
            usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
            read.get("cached_tokens") or 0,
            usage.get("completion_tokens") or usage.get("output_tokens") or 0,
            written.get("reasoning_tokens") or 0,
        )

    @property
    def body(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        }


def _dict(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one line."""

    status: int
    request_id: str
    body: bytes
    """JSON."""
    retries: bool = True
    """Whether the server lets a request that failed so be sent again."""
    retry_after_s: float | None = None
    """When it wants to be asked again, if it says."""

    @property
    def good(self) -> bool:
        return self.status == 200

    def line(self, custom_id: str) -> bytes:
        """The line of the output or error file."""
        response = {"status_code": self.status, "request_id": self.request_id, "body": orjson.Fragment(self.body)}
        return _line(custom_id, response, None)


def unanswered(custom_id: str, code: str, message: str) -> bytes:
    """The error file's line of a request that was not answered."""
    return _line(custom_id, None, {"code": code, "message": message})


def _line(custom_id: str, response: Mapping[str, Any] | None, error: Mapping[str, str] | None) -> bytes:
    told = {"id": new_id("batch_req_"), "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch; times are Unix seconds."""

    id: str
    owner: str
    model: str
    """What was served when it was made; only a server of the same model runs it."""
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    keep_s: int
    """How long its files are kept once it has ended."""
    created_at: int
    expires_at: int
    output_file_id: str | None = field(default_factory=lambda: new_id("file-"))
    error_file_id: str | None = field(default_factory=lambda: new_id("file-"))
    status: Status = "validating"
    errors: tuple[LineError, ...] = ()
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: Tokens = Tokens()
    spent_tokens: int = 0
    """Generated and scored, also by what came to nothing; known only where `total_tokens` limits them."""

    @property
    def total_tokens(self) -> int | None:
        """What its lines may cost together; None: each has a budget of its own."""
        with suppress(ValueError):
            return total_tokens(self.metadata)
        # It was made when this word meant nothing.
        return None

    @property
    def is_answered(self) -> bool:
        return self.total == self.completed + self.failed

    @property
    def has_files(self) -> bool:
        return self.status in ("completed", "expired", "cancelled")

    @property
    def body(self) -> dict[str, Any]:
        errors = {"object": "list", "data": [error._asdict() for error in self.errors]}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": errors if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id if self.has_files else None,
            "error_file_id": self.error_file_id if self.has_files else None,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
            "expired_at": self.expired_at,
            "cancelling_at": self.cancelling_at,
            "cancelled_at": self.cancelled_at,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": self.tokens.body,
            "metadata": self.metadata,
        }
