"""Errors to responses: always OpenAI's error object, never FastAPI's `detail`."""

import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from prm import PRMError
from strategies.core.contracts import Refused
from strategies.core.plain_words import reason
from tts_server.errors import (
    MAX_PARAM,
    APIError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    UnsupportedParameter,
    shown,
    translate,
)
from tts_server.logs import Private
from tts_server.middleware.disconnect import ClientLeft
from tts_server.middleware.endpoints import Endpoints
from tts_server.request_state import CLIENT_LEFT, RequestState
from tts_server.schema.chat import UNSUPPORTED

log = logging.getLogger(__name__)

_BRANCH = re.compile(r"str|NamedTool|ToolChoice|(?:list|literal)\[.*\]")
"""How pydantic calls a branch of a union in a place; no field of ours has such a name."""

_OWN_WORDS = (401, 413, 429, 503)
"""Statuses whose messages quote nothing that was sent."""
_NO_OBJECT = {"missing": "empty", "model_type": "no object", "model_attributes_type": "no object"}
"""What pydantic says of a body as a whole."""


def error_response(error: APIError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as OpenAI writes it."""
    return JSONResponse(error.body, error.status, {**error.headers, **(headers or {})})


async def refuse(
    error: APIError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: Mapping[str, str] | None = None,
    why: str = "",
) -> None:
    """Answers a request that goes no further, and says so in the log.

    Args:
        error: what the client is told.
        scope: the request's, as `receive` and `send` are.
        receive: see `scope`.
        send: see `scope`.
        headers: of the answer, beside the error's own.
        why: what the log says instead of the error's message; it may not quote what was sent.
    """
    _log(error, scope, why)
    await error_response(error, headers)(scope, receive, send)


def _log(error: APIError, scope: Scope, why: str = "") -> None:
    # Paths and most messages quote what was sent.
    path = RequestState.of(scope).endpoint or "a path that is not there"
    said = why or (error.message if error.status in _OWN_WORDS else Private(error.message))
    log.info("%s %s: refused with %d %s: %s", scope["method"], path, error.status, error.code, said)


def _response(error: APIError, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    _log(error, request.scope)
    return error_response(error, headers)


async def on_known(request: Request, error: Exception) -> Response:
    return _response(translate(error), request)


async def _on_http(endpoints: Endpoints, request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, APIError):
        # FastAPI wraps whatever goes wrong while it reads the body.
        return _response(error.__cause__, request)
    match getattr(error, "status_code", 500):
        case 404:
            return _response(
                NotFound(f"There is nothing at {shown(request.url.path)}.{_meant(endpoints, request)}"), request
            )
        case 405:
            # Who sees this is a developer in front of a browser.
            cors = " Pages may ask from a browser once the setting cors_origins names their origin."
            said = f"{request.method} is not allowed at {request.url.path}."
            refused = MethodNotAllowed(said + (cors if "access-control-request-method" in request.headers else ""))
            return _response(refused, request, getattr(error, "headers", None))
        case _:
            return _response(InvalidRequest(str(getattr(error, "detail", error))), request)


def _meant(endpoints: Endpoints, request: Request) -> str:
    """What a client asks for whose base URL lacks its end, or has it twice."""
    path = "/v1/" + request.url.path.rpartition("/v1/")[2].lstrip("/")
    if endpoints.of({**request.scope, "path": path}) is None:
        return ""
    return f" There is {shown(path)}: the base URL of a client ends with one /v1."


async def on_left(request: Request, error: Exception) -> Response:
    note_left(RequestState.of(request.scope))
    return Response(status_code=CLIENT_LEFT)


def note_left(state: RequestState) -> None:
    """Notes that the client left, whether or not its answer had begun."""
    state.status = CLIENT_LEFT
    log.info("%s: the client left after %.1f s", state.endpoint, time.monotonic() - state.began)


async def on_invalid(request: Request, error: Exception) -> Response:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    # Each branch of a union has an error; the deepest is of the branch that was meant.
    return _response(invalid(max(errors, key=lambda e: len(e["loc"]))), request)


def invalid(error: dict[str, Any]) -> InvalidRequest:
    """A pydantic error as a 400 that names the field."""
    context = error.get("ctx", {})
    if error["type"] == "json_invalid":
        fault = str(context.get("error", error["msg"]))
        return InvalidRequest(f"The body is not valid JSON: {'it is not UTF-8' if 'UTF-8' in fault else fault}.")
    place = [*error["loc"][1:], *([context["field"]] if "field" in context else [])]
    named = [p for p in place if isinstance(p, int) or not _BRANCH.fullmatch(p)]
    param = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in named).lstrip(".")[:MAX_PARAM] or None
    if not param and (what := _NO_OBJECT.get(error["type"])):
        return InvalidRequest(f"The body is {what}; a JSON object is needed.")
    why = reason(error)
    said = why if param and why.startswith(param) else f"{param or 'body'}: {why}"
    if isinstance(error.get("input"), str | int | float):
        said += f", got {shown(error['input'])}"
    return (UnsupportedParameter if error["type"] == UNSUPPORTED else InvalidRequest)(said, param=param)


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str
    param: str | None
    """The request's field that is at fault."""
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is none."""

    error: ErrorDetail


RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is not what the API takes; `param` names the field."},
    "4XX": {"model": ErrorBody, "description": "The request cannot be answered as it is."},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer now."},
}
"""The errors of every route, for `/openapi.json`."""


def handlers(endpoints: Endpoints) -> dict[Any, Any]:
    """What answers in place of a route that has raised, by the kind of error."""
    return {
        RequestValidationError: on_invalid,
        HTTPException: partial(_on_http, endpoints),
        APIError: on_known,
        Refused: on_known,
        PRMError: on_known,
        ClientLeft: on_left,
        Exception: on_known,
    }
