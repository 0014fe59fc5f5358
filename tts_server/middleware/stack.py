"""What every request passes before a route: its id, its key and that key's quota, and its size; then `gate`."""

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_server import context
from tts_server.admission.keys import Keys
from tts_server.admission.quotas import Quota, cost, spends
from tts_server.config import KeyLimits
from tts_server.errors import (
    APIError,
    EngineUnavailable,
    InvalidAPIKey,
    InvalidRequest,
    RequestTooLarge,
    TooManyRequests,
    translate,
)
from tts_server.middleware.error_responses import error_response, refuse
from tts_server.schema.ids import unique

BATCH_LINE = "tts_server.batch_line"
"""Marks the scope of a request that the server sends to itself for a batch: its key was looked at when the batch was
made, it takes no interactive request's place, and `scope["state"]["owner"]` says whose it is. No client can set it."""
UPLOADS = "/v1/files"
"""Where a body is a form with a file in it."""
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})
"""What needs no key and always finds room: probes must get through."""


class Uniform:
    """Makes one request of those that mean the same: HEAD is GET without its body, and needless slashes do not count.

    It stands outside of everything else, so that each sees the same method and path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path: str = scope["path"]
        if "//" in path or path.endswith("/"):
            path = "/" + "/".join(part for part in path.split("/") if part)
        if scope["method"] != "HEAD":
            return await self._app(scope if path == scope["path"] else {**scope, "path": path}, receive, send)

        async def bodiless(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # The server has to know that it is HEAD, so its own scope stays as it is.
        return await self._app({**scope, "path": path, "method": "GET"}, receive, bodiless)


class RequestId:
    """Gives each response an `x-request-id`, the caller's own where it sent one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        # What comes back in a header is bounded and printable.
        request_id = sent if sent.isascii() and sent.isprintable() and 0 < len(sent) <= 128 else unique()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        # Each request runs in a task of its own, so there is nothing to be put back.
        context.request_id.set(request_id)

        begun = False

        async def tagged(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                state["status"] = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except asyncio.CancelledError:
            # Only the end of the server cancels a request.
            if not begun:
                await error_response(EngineUnavailable("The server is going down."))(scope, receive, tagged)
            raise
        except Exception as error:
            # The framework's own last handler stands outside of this one and would answer without the id.
            if not begun:
                await error_response(translate(error))(scope, receive, tagged)
            raise


class Auth:
    """Lets in who knows a key: `Authorization: Bearer <key>`; everybody where there are no keys.

    From here on `scope["state"]["owner"]` is the name of who asks, empty where there are no keys.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            owner = self._owner(scope)
            if owner is None:
                error = InvalidAPIKey("No valid API key. Send it as 'Authorization: Bearer <key>'.")
                return await refuse(error, scope, receive, send, why=_unknown(scope))
            scope.setdefault("state", {})["owner"] = owner
            context.owner.set(owner)
        return await self._app(scope, receive, send)

    def _owner(self, scope: Scope) -> str | None:
        if not self._keys:
            return ""
        if BATCH_LINE in scope:
            # Whose key was taken away since has no more lines answered.
            owner: str = scope["state"]["owner"]
            return owner if owner in self._keys.limits else None
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        return self._keys.owner_of(key.strip()) if scheme.lower() == "bearer" else None


def _unknown(scope: Scope) -> str:
    """Why nobody is known to have sent a request, for the log: without the key."""
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    if not scheme:
        what = "no Authorization header"
    else:
        what = "a key that nobody has" if scheme.lower() == "bearer" and key else "a scheme that is not Bearer"
    return f"{what}, from {scope['client'][0] if scope.get('client') else 'this server'}"


def owner_of(request: Request) -> str:
    """The name of who asks; empty where there are no keys."""
    return str(request.scope.get("state", {}).get("owner", ""))


class Quotas:
    """Holds each owner of a key to its limits, and charges it what its requests have cost when they have ended."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, KeyLimits]) -> None:
        self._app = app
        self._quotas = {owner: Quota(owner, of_owner) for owner, of_owner in limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quota = self._quotas.get(scope.get("state", {}).get("owner", "")) if scope["type"] == "http" else None
        if quota is None:
            return await self._app(scope, receive, send)
        line, computes = BATCH_LINE in scope, spends(scope)
        try:
            if line:
                quota.check_tokens()
            elif computes:
                quota.admit()
        except TooManyRequests as error:
            return await refuse(error, scope, receive, send)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(quota.headers)
            await send(message)

        try:
            with quota.running() if computes and not line else nullcontext():
                return await self._app(scope, receive, told)
        finally:
            quota.charge(cost(scope))


class BodyLimit:
    """Refuses bodies that are too large, by their header or by their bytes, and those that are not JSON.

    Uploads have a limit of their own, and are forms. Where there is no body there is no type of it.
    """

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int) -> None:
        self._app = app
        self._limit = limit
        self._upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        upload = scope["path"] == UPLOADS
        wanted, limit = ("multipart/form-data", self._upload_limit) if upload else ("application/json", self._limit)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        declared = headers.get("content-length", "")
        # A page of another origin can send any other type without asking first, and no type at all.
        empty = "content-type" not in headers and "transfer-encoding" not in headers and declared in ("", "0")
        if media_type != wanted and not empty:
            error: APIError = InvalidRequest(f"Content-Type: {wanted} is needed, got {media_type[:80]!r}.")
            return await refuse(error, scope, receive, send)
        if declared.isdigit() and int(declared) > limit:
            return await refuse(_too_large(limit), scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return await self._app(scope, counted, send)


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is over the limit of {limit} bytes.")
