"""What an upstream says when it fails, as this server's errors. Never repeats the API key."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from tts_server.errors import APIError, ContextTooLong, EngineUnavailable, InvalidRequest, UpstreamError

_LIMIT = re.compile(r"maximum (?:context|model) length\D{1,6}(\d+)", re.IGNORECASE)
_TOKENS = re.compile(r"(?:length \(?|contains |resulted in |requested |at least )(\d+)(?!\d| char)", re.IGNORECASE)
FILTERED = "content_filter"
"""The code of a prompt that the upstream's content filter refuses."""
_LONGEST = 500
_LONGEST_WAIT_S = 24 * 3600.0
"""Whatever an upstream asks for: a number without end is none."""


class NoSuchPath(UpstreamError):
    """The upstream does not have this path."""


class Unreached(EngineUnavailable):
    """No connection came about: the upstream has seen nothing of the request."""


class Busy(UpstreamError):
    """The upstream has more requests than it takes, and did not begin with this one."""

    def __init__(self, message: str, wait_s: float | None) -> None:
        super().__init__(message, headers={} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))})
        self.wait_s = wait_s
        """Until it wants to be asked again, if it says."""


def refusal(status: int, headers: Mapping[str, str], body: bytes, key: str | None) -> APIError:
    """The error behind an answer whose status is not 200."""
    if status in (401, 403):
        # Its own words may repeat the key.
        return UpstreamError(f"The upstream refuses {'the API key' if key else 'calls without an API key'}.")
    error = _error_object(body)
    message = _message(error, key) or f"status {status}"
    if status in (400, 413, 422):
        return _invalid(message, error)
    if status in (404, 405, 501):
        return NoSuchPath(f"The upstream does not serve this: {message}")
    if status == 503:
        wait = retry_after(headers)
        return EngineUnavailable(f"The upstream is unavailable: {message}", 5 if wait is None else max(1, round(wait)))
    told = f"The upstream failed with status {status}: {message}"
    return Busy(told, retry_after(headers)) if status == 429 else UpstreamError(told)


def broken_off(frame: bytes, key: str | None) -> APIError:
    """The error that a frame of a stream reports."""
    error = _error_object(frame)
    message = _message(error, key) or "no reason given"
    if error.get("code") in (400, "400", ContextTooLong.code):
        return _invalid(message, error)
    return UpstreamError(f"The upstream failed in the middle of its answer: {message}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the upstream wants to be asked again, if it says."""
    value = headers.get("retry-after", "")
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, wait), _LONGEST_WAIT_S)


def _error_object(body: bytes) -> Mapping[str, Any]:
    """OpenAI's error object, or what other servers send in its place."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": body.decode(errors="replace").strip()}
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        return error if "message" in error else {"message": error.get("detail", "")}
    return {"message": error}


def _message(error: Mapping[str, Any], key: str | None) -> str:
    try:
        message = str(error.get("message") or "")
    except RecursionError:
        message = "an error that is nested too deep to be told"
    return (message.replace(key, "***") if key else message)[:_LONGEST]


def _invalid(message: str, error: Mapping[str, Any]) -> InvalidRequest:
    limit, tokens = _LIMIT.search(message), _TOKENS.search(message)
    if limit and tokens:
        return ContextTooLong(int(tokens[1]), int(limit[1]))
    param = error.get("param")
    invalid = InvalidRequest(
        f"The upstream refuses the request: {message}", param=param if isinstance(param, str) else None
    )
    if limit or error.get("code") == ContextTooLong.code:
        invalid.code = ContextTooLong.code
    elif error.get("code") == FILTERED:
        invalid.code = FILTERED
    return invalid
