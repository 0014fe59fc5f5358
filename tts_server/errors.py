"""Every error a client can see.

    APIError                     500 internal_error
    ├── InvalidRequest           400 invalid_value            bad JSON, bad value
    │   ├── UnsupportedParameter 400 unsupported_parameter    a field that cannot be honoured
    │   └── ContextTooLong       400 context_length_exceeded
    ├── InvalidAPIKey            401 invalid_api_key
    ├── NotFound                 404 not_found                unknown path
    │   └── ModelNotFound        404 model_not_found
    ├── MethodNotAllowed         405 method_not_allowed
    ├── RequestTooLarge          413 request_too_large
    ├── UnsupportedMediaType     415 unsupported_media_type   a body in an encoding that is not understood
    ├── TooManyRequests          429 rate_limit_exceeded
    ├── HeadersTooLarge          431 headers_too_large
    ├── EngineUnavailable        503 engine_unavailable       starting, draining, dead
    ├── UpstreamError            502 upstream_error           the OpenAI-compatible upstream failed
    ├── Timeout                  504 timeout
    └── StorageFull              507 storage_full             files and batches have no room left

Errors from below (`strategies.core.contracts.Refused`, `prm.PRMError`) are translated at the seam by `translate`.
"""

from collections.abc import Mapping
from typing import Any

from prm import PRMError, PRMInputError
from strategies.core.contracts import EngineGone, Refused

MAX_MESSAGE, MAX_PARAM, MAX_SHOWN = 2000, 200, 80
"""Characters. What a client sent may be long and must not come back whole."""


def shown(value: object) -> str:
    """What a client sent, quoted and cut to a length that leaves room for the rest of the message."""
    text = str(value)
    return repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…")


class APIError(Exception):
    """An error with its HTTP status and its place in OpenAI's error object."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.message = message[:MAX_MESSAGE]
        super().__init__(self.message)
        self.param = param and param[:MAX_PARAM]
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(APIError):
    """The request is not what the API takes; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    """A field that this model, engine or strategy cannot honour."""

    code = "unsupported_parameter"


class ContextTooLong(InvalidRequest):
    """The prompt, or prompt and wanted completion, do not fit the model's context."""

    code = "context_length_exceeded"

    def __init__(self, tokens: int, limit: int, param: str = "messages") -> None:
        # LiteLLM, LangChain and inspect_ai recognise these very words.
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} "
            "tokens (context_length_exceeded).",
            param=param,
        )


class InvalidAPIKey(APIError):
    """No API key, or one that is not known."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class NotFound(APIError):
    """There is nothing under this path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """There is no model of this name."""

    code = "model_not_found"

    def __init__(self, model: str, known: list[str]) -> None:
        super().__init__(f"The model {shown(model)} does not exist. Known: {', '.join(known)}.", param="model")


class MethodNotAllowed(APIError):
    """The path exists, but not with this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTooLarge(APIError):
    """The body is over the server's limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(APIError):
    """The body is in an encoding that the server does not understand."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class HeadersTooLarge(APIError):
    """The headers are over the server's limit."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class TooManyRequests(APIError):
    """The server has as many requests as it takes."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class EngineUnavailable(APIError, EngineGone):
    """The engine is starting, draining or dead."""

    status = 503
    code = "engine_unavailable"

    def __init__(self, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after_s)})


class UpstreamError(APIError):
    """The OpenAI-compatible upstream failed."""

    status = 502
    code = "upstream_error"


class Timeout(APIError):
    """The server's own time limit passed before there was any answer."""

    status = 504
    code = "timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class StorageFull(APIError):
    """There is no room left for files and batches, by the configured limit or on the disk."""

    status = 507
    code = "storage_full"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


def translate(error: BaseException) -> APIError:
    """The client's view of any error; one that is nobody's fault but ours becomes a generic 500."""
    match error:
        case APIError():
            return error
        case Refused():
            return UnsupportedParameter(str(error), param=error.param)
        case PRMInputError():
            return InvalidRequest(str(error), param=error.param)
        case PRMError():
            return APIError(f"The reward model failed: {error}")
        case BaseExceptionGroup():
            return translate(error.exceptions[0])
        case _:
            return APIError("The server failed to answer this request.")
