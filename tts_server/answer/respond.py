"""The stages of a generating request: check, plan, run and render; its errors become its answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tts_server.admission.queue import Flow
from tts_server.answer.chat import Envelope, Json, chunks, completion, heartbeat
from tts_server.app_state import AppState, app_state
from tts_server.errors import APIError, EngineUnavailable, translate
from tts_server.logs import Private, kinds
from tts_server.middleware.disconnect import ClientLeft, connected
from tts_server.middleware.error_responses import error_response, note_left
from tts_server.planning.plan import Plan
from tts_server.planning.service import Service
from tts_server.request_state import RequestState, state_of

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
"""A stream that is silent for as long gets a chunk that says nothing, so that none is silent for 15 s: LangChain gives
up after 120 s without a chunk, and proxies sooner."""

PROGRESS_S = 1.0
"""The same for a client that counts along, once its answer has begun."""

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Answer(Protocol):
    """What a request is answered with, in the form of its endpoint. It runs when it is read, and is read once."""

    @property
    def plans(self) -> Sequence[Plan]:
        """What it runs."""
        ...

    @property
    def id(self) -> str: ...

    @property
    def trace_id(self) -> str: ...

    @property
    def typed(self) -> bool:
        """Whether each event is named by its `type` and the last one tells that it is; else `[DONE]` does."""
        ...

    @property
    def continuous(self) -> bool:
        """Whether its client wants to know all the time how far it is."""
        ...

    def whole(self) -> Coroutine[Any, Any, Json]:
        """One body."""
        ...

    def chunks(self) -> AsyncGenerator[Json, None]:
        """The body of each server-sent event."""
        ...

    def heartbeat(self) -> Json:
        """A chunk that says nothing, for clients that count the seconds between chunks."""
        ...

    def failure(self, error: APIError) -> Sequence[Json]:
        """The last chunks of a stream that failed after it had begun."""
        ...


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A chat's answer."""

    plan: Plan
    envelope: Envelope
    typed = False

    @property
    def plans(self) -> Sequence[Plan]:
        return (self.plan,)

    @property
    def id(self) -> str:
        return self.envelope.id

    @property
    def trace_id(self) -> str:
        return self.envelope.trace_id

    @property
    def continuous(self) -> bool:
        return self.envelope.continuous_usage

    def whole(self) -> Coroutine[Any, Any, Json]:
        return completion(self.plan.run(), self.envelope)

    def chunks(self) -> AsyncGenerator[Json, None]:
        return chunks(self.plan.run(), self.envelope)

    def heartbeat(self) -> Json:
        return heartbeat(self.envelope)

    def failure(self, error: APIError) -> Sequence[Json]:
        return (error.body,)


async def respond(
    request: Request, plan: Callable[[Service, Flow | None], Awaitable[Answer]], *, stream: bool
) -> Response:
    """Answers a generating request in four stages: check, plan, run and render.

    When the client leaves, its work is cancelled, the event iterators are closed, and with them every engine and reward
    model call, streaming or not. Until the first event of a stream, or the first heartbeat while it waits for it, an
    error is an HTTP status.

    Args:
        request: what is answered; the schema of its route has checked the body.
        plan: says how; the answer runs its plans when it is rendered.
        stream: whether the client wants the answer as it grows.
    """
    state, server = state_of(request), app_state(request)
    check(server.service)
    async with connected(request.receive):
        answer = await plan(server.service, state.flow)
        _note(answer, state, server)
        if not stream:
            with _under_way(answer, state, server):
                try:
                    return Response(orjson.dumps(await answer.whole()), media_type="application/json")
                except Exception as error:
                    return _refusal(answer, _logged(answer, error))
    return _Stream(answer, state, server)


def check(service: Service) -> None:
    """Raises EngineUnavailable unless the engine can generate now."""
    if not service.engine.healthy:
        raise EngineUnavailable("The engine is not up; it is being started again.")


def _note(answer: Answer, state: RequestState, server: AppState) -> None:
    """Bills what the answer runs, and lets traces be recorded of it."""
    state.plans = answer.plans
    for plan in answer.plans:
        state.bill(plan.account, plan.strategy, answer.trace_id)
    server.traces.record(state, server.service.engine.model, answer.trace_id)


@contextmanager
def _under_way(answer: Answer, state: RequestState, server: AppState) -> Iterator[None]:
    """Lets the server's end hurry the searches while they run; logs what they have come to."""
    searches = {} if state.is_batch_line else {id(plan.account): plan.account for plan in answer.plans}
    server.drain.searches |= searches
    try:
        yield
    finally:
        for key in searches:
            del server.drain.searches[key]
    _log(answer)


def _logged(answer: Answer, error: Exception) -> APIError:
    """The error as its client sees it; the log has more."""
    known = translate(error)
    if type(known) is APIError:
        log.error("%s: failed", answer.id, exc_info=error)
    else:
        log.info("%s: %s: %s", answer.id, kinds(error), Private(known.message))
    return known


def _refusal(answer: Answer, error: APIError) -> Response:
    # To repeat a search that has already cost something doubles its cost.
    cost = any(plan.account.usage.completion_tokens for plan in answer.plans)
    return error_response(error, {"x-should-retry": "false"} if cost else {})


def _log(answer: Answer) -> None:
    for plan in answer.plans:
        account = plan.account
        log.info(
            "%s %s: %s, %d samples, %d tokens, %d PRM tokens, %.2f s%s",
            answer.id,
            answer.trace_id,
            plan.strategy,
            account.usage.samples,
            account.usage.completion_tokens,
            account.usage.prm_tokens,
            account.wall_s,
            f", stopped by {account.stop_reason}" if account.stop_reason else "",
        )


class _Stream(Response):
    """Runs plans while it sends their answer as server-sent events."""

    def __init__(self, answer: Answer, state: RequestState, server: AppState) -> None:
        self._answer = answer
        self._state = state
        self._server = server
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer, sender = self._answer, _Sender(send, self._answer)
        try:
            async with connected(receive):
                with _under_way(answer, self._state, self._server):
                    try:
                        await sender.stream(answer.chunks())
                    except Exception as error:
                        known = _logged(answer, error)
                        if sender.begun:
                            self._state.status = known.status
                            await sender.fail(known)
                        else:
                            await _refusal(answer, known)(scope, receive, send)
        except ClientLeft:
            if not sender.begun:
                raise
            note_left(self._state)


class _Sender:
    """Server-sent events over ASGI; the response begins with the first of them."""

    def __init__(self, send: Send, answer: Answer) -> None:
        self.begun = False
        self._send = send
        self._answer = answer
        self._sent_at = time.monotonic()
        self._lock = asyncio.Lock()

    async def stream(self, rendered: AsyncGenerator[dict[str, Any], None]) -> None:
        # It beats from the start: a first token may wait for long, and then the response begins without it.
        beat = asyncio.create_task(self._beat())
        try:
            async with aclosing(rendered):
                async for chunk in rendered:
                    await self._tell(chunk)
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat
        await self._end()

    async def fail(self, error: APIError) -> None:
        for chunk in self._answer.failure(error):
            await self._tell(chunk)
        await self._end()

    async def _end(self) -> None:
        if not self._answer.typed:
            await self._frame(b"data: [DONE]")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, chunk: Json) -> None:
        name = b"event: " + chunk["type"].encode() + b"\n" if self._answer.typed else b""
        await self._frame(name + b"data: " + orjson.dumps(chunk))

    async def _frame(self, event: bytes) -> None:
        self._sent_at = time.monotonic()
        async with self._lock:
            if not self.begun:
                start: Message = {"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS}
                await self._send(start)
                self.begun = True
            # Some clients split at "\n\n" and nothing else.
            await self._send({"type": "http.response.body", "body": event + b"\n\n", "more_body": True})

    async def _beat(self) -> None:
        continuous = self._answer.continuous
        while True:
            # Until the response has begun, an error can still be its status.
            pace_s = PROGRESS_S if continuous and self.begun else HEARTBEAT_S
            left = self._sent_at + pace_s - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, PROGRESS_S) if continuous else left)
            else:
                await self._tell(self._answer.heartbeat())
