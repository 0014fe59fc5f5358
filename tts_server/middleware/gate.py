"""The last door before the routes: whether there is room for a request, and what its calls of the engine wait for."""

from contextlib import nullcontext

from starlette.types import ASGIApp, Receive, Scope, Send

from tts_server.admission.engine import FLOW
from tts_server.admission.interactive_load import Load
from tts_server.admission.queue import Admission
from tts_server.admission.quotas import spends
from tts_server.admission.rate import Rate
from tts_server.admission.shutdown import Drain
from tts_server.errors import EngineUnavailable, TooManyRequests
from tts_server.middleware.error_responses import refuse
from tts_server.middleware.stack import BATCH_LINE, OPEN_PATHS


class Gate:
    """Bounds the requests under way, counts those that wait for an engine, and gives each its place in the queue.

    A request is refused before it costs anything; one that was let in is never refused for want of room.
    """

    def __init__(self, app: ASGIApp, limit: int, load: Load, admission: Admission, drain: Drain) -> None:
        self._app = app
        self._limit = limit
        self._load = load
        self._admission = admission
        self._drain = drain
        self._inside = 0
        self._rate = Rate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        owner = scope.get("state", {}).get("owner", "")
        if BATCH_LINE in scope:
            FLOW.set(self._admission.flow(owner, batch=True))
            return await self._app(scope, receive, send)
        if self._drain.begun:
            gone = EngineUnavailable("The server is going down; another one, or this one once it is up again, will do.")
            return await refuse(gone, scope, receive, send, headers={"Connection": "close"})
        if refusal := self._refusal(scope, owner):
            return await refuse(refusal, scope, receive, send)
        FLOW.set(self._admission.flow(owner))
        self._inside += 1
        try:
            with self._load.one() if spends(scope) else nullcontext():
                return await self._app(scope, receive, send)
        finally:
            self._inside -= 1
            self._rate.note()

    def _refusal(self, scope: Scope, owner: str) -> TooManyRequests | None:
        if self._inside >= self._limit:
            wait_s = self._rate.retry_after_s(1)
            said = f"The server has {self._limit} requests under way."
        elif self._admission.is_full(owner) and spends(scope):
            wait_s = self._admission.retry_after_s
            said = f"{self._admission.waiting} samples wait for the engine already."
        else:
            return None
        return TooManyRequests(said, headers={"Retry-After": str(wait_s)})
