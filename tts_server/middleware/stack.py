"""The first that a request meets: its state with its id, and the owner of its key; then `body` and `gate`."""

import asyncio
from contextlib import nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_server.admission.keys import Keys
from tts_server.admission.quotas import computes
from tts_server.errors import EngineUnavailable, InvalidAPIKey, translate
from tts_server.middleware.endpoints import Endpoints
from tts_server.middleware.error_responses import error_response, refuse
from tts_server.observe.metrics.counts import Metrics
from tts_server.request_state import RequestState, current
from tts_server.schema.ids import unique

OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"})
"""What needs no key and always finds room: probes must get through."""


class Entry:
    """Gives a request its state, counts it but for probes, and gives each response an `x-request-id`.

    It also makes one request of those that mean the same: HEAD is GET without its body, and needless slashes do not
    count. It stands outside of everything else, so that each sees the same method and path.

    Args:
        app: what comes behind it.
        endpoints: the paths that there are.
        metrics: where requests are counted, refused ones too.
    """

    def __init__(self, app: ASGIApp, endpoints: Endpoints, metrics: Metrics) -> None:
        self._app = app
        self._endpoints = endpoints
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # The server has to know that it is HEAD, so its own scope stays as it is.
        bodiless, scope = scope["method"] == "HEAD", _uniform(scope)
        state = self._state(scope)
        # Each request runs in a task of its own, so there is nothing to be put back.
        current.set(state)
        begun = False

        async def tagged(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                state.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = state.id
            elif bodiless:
                message = {**message, "body": b""}
            await send(message)

        with self._metrics.request(state) if scope["path"] not in OPEN_PATHS else nullcontext():
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

    def _state(self, scope: Scope) -> RequestState:
        state = RequestState.begun(scope)
        if state is None:
            sent = Headers(scope=scope).get("x-request-id", "")
            # What comes back in a header is bounded and printable.
            state = RequestState(sent if sent.isascii() and sent.isprintable() and 0 < len(sent) <= 128 else unique())
            state.enter(scope)
        state.endpoint = self._endpoints.of(scope)
        state.computes = computes(scope["method"], scope["path"])
        return state


def _uniform(scope: Scope) -> Scope:
    """The scope with GET in place of HEAD, and with no needless slash in its path."""
    path: str = scope["path"]
    if "//" in path or path.endswith("/"):
        path = "/" + "/".join(part for part in path.split("/") if part)
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "path": path, "method": method}


class Auth:
    """Lets in who knows a key: `Authorization: Bearer <key>`; everybody where there are no keys.

    From here on the request's owner is known.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            state = RequestState.of(scope)
            state.owner = self._owner(scope, state)
            if state.owner is None:
                error = InvalidAPIKey("No valid API key. Send it as 'Authorization: Bearer <key>'.")
                return await refuse(error, scope, receive, send, why=_unknown(scope))
        return await self._app(scope, receive, send)

    def _owner(self, scope: Scope, state: RequestState) -> str | None:
        if not self._keys:
            return ""
        if state.is_batch_line:
            # Whose key was taken away since has no more lines answered.
            return state.owner if state.owner in self._keys.limits else None
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
