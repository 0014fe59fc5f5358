"""What every request passes before a route: its id, its key, its size, and whether there is room for it."""

import asyncio
import hashlib
import hmac
import uuid
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_server.config import ConfigError
from tts_server.errors import (
    APIError,
    EngineUnavailable,
    InvalidAPIKey,
    InvalidRequest,
    RequestTooLarge,
    TooManyRequests,
    translate,
)
from tts_server.handlers import error_response
from tts_server.load import Load

BATCH_LINE = "tts_server.batch_line"
"""Marks the scope of a request that the server sends to itself for a batch: its key was looked at when the batch was
made, it takes no interactive request's place, and `scope["state"]["owner"]` says whose it is. No client can set it."""
UPLOADS = "/v1/files"
"""Where a body is a form with a file in it."""
QUIET = ("/v1/files", "/v1/batches")
"""What waits for no engine, and for which no batch has to make room."""
OPEN_PATHS = frozenset({"/health", "/metrics"})
"""What needs no key and always finds room: probes must get through."""


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
        request_id = sent if sent.isascii() and sent.isprintable() and 0 < len(sent) <= 128 else uuid.uuid4().hex

        begun = False

        async def tagged(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
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
    """Lets in who knows a key: `Authorization: Bearer <key>`; everybody where there are no keys."""

    def __init__(self, app: ASGIApp, keys: Collection[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and BATCH_LINE not in scope
            and self._digests
            and scope["path"] not in OPEN_PATHS
            and scope["method"] != "OPTIONS"
        ):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self._knows(key.strip()):
                error = InvalidAPIKey("No valid API key. Send it as 'Authorization: Bearer <key>'.")
                return await error_response(error)(scope, receive, send)
            # Files and batches belong to the key that made them.
            scope.setdefault("state", {})["owner"] = _digest(key.strip()).hex()
        return await self._app(scope, receive, send)

    def _knows(self, key: str) -> bool:
        digest = _digest(key)
        # Every key is compared, so the time tells nothing.
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


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
        empty = "content-type" not in headers and "transfer-encoding" not in headers and declared in ("", "0")
        if media_type != wanted and not empty:
            error: APIError = InvalidRequest(f"The content type is {wanted}, got {media_type[:80]!r}.")
            return await error_response(error)(scope, receive, send)
        too_large = RequestTooLarge(f"The body is over the limit of {limit} bytes.")
        if declared.isdigit() and int(declared) > limit:
            return await error_response(too_large)(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise too_large
            return message

        return await self._app(scope, counted, send)


class Gate:
    """Bounds the requests under way, and counts those that wait for an engine."""

    def __init__(self, app: ASGIApp, limit: int, load: Load) -> None:
        self._app = app
        self._limit = limit
        self._load = load
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or BATCH_LINE in scope:
            return await self._app(scope, receive, send)
        if self._inside >= self._limit:
            error = TooManyRequests(f"The server has {self._limit} requests under way.", headers={"Retry-After": "1"})
            return await error_response(error)(scope, receive, send)
        self._inside += 1
        try:
            with nullcontext() if scope["path"].startswith(QUIET) else self._load.one():
                return await self._app(scope, receive, send)
        finally:
            self._inside -= 1


def read_keys(path: Path | None) -> list[str]:
    """The API keys of a file, one a line; blank lines and `#` comments do not count.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    if path is None:
        return []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file: {error}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"api_key_file: {path} holds no key")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
