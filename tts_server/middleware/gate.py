"""The last door before the routes: whether the owner's quota and the server have room for a request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_server.admission.engine import FLOW
from tts_server.admission.interactive_load import Load
from tts_server.admission.queue import Admission
from tts_server.admission.quotas import Quota
from tts_server.admission.rate import Rate
from tts_server.admission.shutdown import Drain
from tts_server.config import KeyLimits
from tts_server.errors import EngineUnavailable, TooManyRequests
from tts_server.middleware.error_responses import refuse
from tts_server.middleware.stack import OPEN_PATHS
from tts_server.request_state import RequestState


class Gate:
    """Holds each owner of a key to its limits, bounds the requests under way, and gives each its place in the queue.

    A request is refused before it costs anything; one that was let in is never refused for want of room. When it has
    ended, its owner's quota is charged what it has cost.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        limits: Mapping[str, KeyLimits],
        load: Load,
        admission: Admission,
        drain: Drain,
    ) -> None:
        self._app = app
        self._limit = limit
        self._quotas = {owner: Quota(owner, of_owner) for owner, of_owner in limits.items()}
        self._load = load
        self._admission = admission
        self._drain = drain
        self._inside = 0
        self._rate = Rate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        state = RequestState.of(scope)
        owner = state.owner or ""
        quota = self._quotas.get(owner)
        told = _telling(quota, send) if quota else send
        try:
            self._admit(state, owner, quota)
        except EngineUnavailable as gone:
            return await refuse(gone, scope, receive, told, headers={"Connection": "close"})
        except TooManyRequests as error:
            return await refuse(error, scope, receive, told)
        state.flow = self._admission.flow(owner, batch=state.is_batch_line)
        FLOW.set(state.flow)
        with self._under_way(state, quota):
            return await self._app(scope, receive, told)

    def _admit(self, state: RequestState, owner: str, quota: Quota | None) -> None:
        """Raises TooManyRequests or EngineUnavailable where there is no room for the request."""
        if state.is_batch_line:
            if quota:
                quota.check_tokens()
            return
        if self._drain.begun:
            raise EngineUnavailable("The server is going down; another one, or this one once it is up again, will do.")
        if self._inside >= self._limit:
            wait_s = self._rate.retry_after_s(1)
            raise _too_many(f"The server has {self._limit} requests under way.", wait_s)
        if state.computes and self._admission.is_full(owner):
            wait_s = self._admission.retry_after_s
            raise _too_many(f"{self._admission.waiting} samples wait for the engine already.", wait_s)
        if state.computes and quota:
            quota.admit()

    @contextmanager
    def _under_way(self, state: RequestState, quota: Quota | None) -> Iterator[None]:
        """Counts the request while it is under way, and charges its owner in the end."""
        try:
            if state.is_batch_line:
                yield
            else:
                with self._counted(state, quota):
                    yield
        finally:
            if quota:
                quota.charge(state.cost)

    @contextmanager
    def _counted(self, state: RequestState, quota: Quota | None) -> Iterator[None]:
        self._inside += 1
        try:
            if not state.computes:
                yield
            elif quota:
                with self._load.one(), quota.running():
                    yield
            else:
                with self._load.one():
                    yield
        finally:
            self._inside -= 1
            self._rate.note()


def _telling(quota: Quota, send: Send) -> Send:
    """Sends a response with what is left of the quota in its headers."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(quota.headers)
        await send(message)

    return told


def _too_many(why: str, wait_s: int) -> TooManyRequests:
    return TooManyRequests(why, headers={"Retry-After": str(wait_s)})
