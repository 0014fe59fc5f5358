"""Errors to responses: always OpenAI's error object, never FastAPI's `detail`."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from prm import PRMError
from strategies.base import Refused
from tts_server.errors import APIError, InvalidRequest, MethodNotAllowed, NotFound, UnsupportedParameter, translate
from tts_server.protocol import UNSUPPORTED


def error_response(error: APIError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as OpenAI writes it."""
    return JSONResponse(error.body, error.status, {**error.headers, **(headers or {})})


async def on_known(request: Request, error: Exception) -> Response:
    return error_response(translate(error))


async def on_http(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, APIError):
        # FastAPI wraps whatever goes wrong while it reads the body.
        return error_response(error.__cause__)
    match getattr(error, "status_code", 500):
        case 404:
            return error_response(NotFound(f"There is nothing at {request.url.path}."))
        case 405:
            return error_response(MethodNotAllowed(f"{request.method} is not allowed at {request.url.path}."))
        case _:
            return error_response(InvalidRequest(str(getattr(error, "detail", error))))


async def on_invalid(request: Request, error: Exception) -> Response:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    return error_response(invalid(errors[0]))


def invalid(error: dict[str, Any]) -> InvalidRequest:
    """A pydantic error as a 400 that names the field."""
    context = error.get("ctx", {})
    if error["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {context.get('error', error['msg'])}.")
    place = [*error["loc"][1:], *([context["field"]] if "field" in context else [])]
    param = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".") or None
    said = f"{param}: {error['msg']}" if param else str(error["msg"])
    if isinstance(error.get("input"), str | int | float):
        # What was sent may be long and must not come back whole.
        said += f", got {str(error['input'])[:80]!r}"
    return (UnsupportedParameter if error["type"] == UNSUPPORTED else InvalidRequest)(said, param=param)


HANDLERS: Mapping[Any, Any] = {
    RequestValidationError: on_invalid,
    HTTPException: on_http,
    APIError: on_known,
    Refused: on_known,
    PRMError: on_known,
    Exception: on_known,
}
