"""Everything that the client raises.

TTSError
├── ConnectionFailed              no answer: refused, unknown host, cut
│   ├── TimedOut                  no answer in time; the connection is closed, and with it the server's work
│   └── StreamCut                 a stream that stopped before its end
├── UnexpectedAnswer              an answer that is not in the API's format
└── APIError                      the server's own error
    ├── BadRequest                400  a field is wrong; `param` names it
    │   ├── UnsupportedParameter
    │   └── ContextTooLong
    ├── AuthenticationFailed      401, 403
    ├── NotFound                  404  path, model or trace
    ├── RequestTooLarge           413
    ├── RateLimited               429
    └── ServerError               500 and above
        ├── Unavailable           503  starting, draining or dead
        └── ServerTimedOut        504

An error's class is found by its code, and where that says nothing by its status.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tts_server.client.results import ChatResult

MAX_SHOWN = 500
"""Characters of a foreign answer that an error message repeats."""


class TTSError(Exception):
    """The base of all; its message is a sentence for a person."""

    partial: "ChatResult | None" = None
    """What had come of a streamed answer when it failed."""


class ConnectionFailed(TTSError):
    """The server could not be reached, or the connection to it broke."""


class TimedOut(ConnectionFailed):
    """The server did not answer in time."""


class StreamCut(ConnectionFailed):
    """A stream stopped before its end."""


class UnexpectedAnswer(TTSError):
    """What answered does not speak this API."""


class APIError(TTSError):
    """An error that the server told.

    Args:
        message: the server's sentence.
        status: of the HTTP answer; None where the error came in a stream that had begun well.
        type: OpenAI's class of errors, such as `invalid_request_error`.
        code: what went wrong, such as `model_not_found`.
        param: the field of the request that is wrong.
        request_id: names the request in the server's log.
        retry_after_s: seconds after which the server invites to come back.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002  OpenAI's name for it
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(APIError):
    """The request is not what the API takes."""


class UnsupportedParameter(BadRequest):
    """The model, engine or strategy cannot honour a field."""


class ContextTooLong(BadRequest):
    """The messages do not fit the model's context."""


class AuthenticationFailed(APIError):
    """The API key is missing, unknown, or not enough."""


class NotFound(APIError):
    """There is no such path, model or trace."""


class RequestTooLarge(APIError):
    """The request's body is over the server's limit."""


class RateLimited(APIError):
    """The server takes no more requests for now, from this key or at all."""


class ServerError(APIError):
    """The server failed."""


class Unavailable(ServerError):
    """The engine is starting, draining or dead."""


class ServerTimedOut(ServerError):
    """The server's own time limit passed before there was an answer."""


_BY_CODE: Mapping[str, type[APIError]] = {
    "unsupported_parameter": UnsupportedParameter,
    "context_length_exceeded": ContextTooLong,
    "invalid_value": BadRequest,
    "invalid_api_key": AuthenticationFailed,
    "not_found": NotFound,
    "model_not_found": NotFound,
    "request_too_large": RequestTooLarge,
    "rate_limit_exceeded": RateLimited,
    "engine_unavailable": Unavailable,
    "timeout": ServerTimedOut,
}
_BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    404: NotFound,
    413: RequestTooLarge,
    422: BadRequest,
    429: RateLimited,
    503: Unavailable,
    504: ServerTimedOut,
}
_BY_TYPE: Mapping[str, type[APIError]] = {"invalid_request_error": BadRequest, "rate_limit_error": RateLimited}


def api_error(
    body: Any, *, status: int | None = None, request_id: str | None = None, retry_after_s: float | None = None
) -> APIError:
    """The error that an answer, or a frame of a stream, tells; also of servers that tell it in another shape."""
    told = body.get("error", body) if isinstance(body, dict) else body
    fields = told if isinstance(told, dict) else {}
    type_, code, param = (_text(fields.get(name)) for name in ("type", "code", "param"))
    message = _text(fields.get("message")) or (str(told)[:MAX_SHOWN] if told else "The server gave no reason.")
    found = _BY_CODE.get(code or "") or _BY_STATUS.get(status or 0)
    if found is None:
        fallback = ServerError if status is None or status >= 500 else APIError
        found = _BY_TYPE.get(type_ or "", fallback)
    return found(
        message, status=status, type=type_, code=code, param=param, request_id=request_id, retry_after_s=retry_after_s
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
"""Of an error of the operating system, which says nothing beside its words."""


@contextmanager
def translated() -> Iterator[None]:
    """Turns httpx's errors into ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOut(f"{_place(error)} did not answer in time ({type(error).__name__}).") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise ConnectionFailed(f"{_place(error)}: {_NUMBER.sub('', str(error)) or type(error).__name__}") from error


def _place(error: Exception) -> str:
    try:
        url = error.request.url  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return "The server"
    return f"{url.scheme}://{url.netloc.decode()}"
