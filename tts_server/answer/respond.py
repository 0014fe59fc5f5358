"""A request's life: what it runs ends when its client leaves, and its errors become its answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tts_server.admission.quotas import bill
from tts_server.admission.shutdown import Drain
from tts_server.answer.chat import Envelope, Json, chunks, completion, heartbeat
from tts_server.answer.disconnect import ClientLeft, while_connected
from tts_server.errors import APIError, translate
from tts_server.logs import Private, kinds
from tts_server.middleware.error_responses import error_response
from tts_server.middleware.stack import BATCH_LINE
from tts_server.observe.traces.store import Traces
from tts_server.planning.plan import Plan

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
"""A stream that is silent for as long gets a chunk that says nothing, so that none is silent for 15 s: LangChain gives
up after 120 s without a chunk, and proxies sooner."""

PROGRESS_S = 1.0
"""The same for a client that counts along, once its answer has begun."""

CLIENT_LEFT = 499
"""The status, which nobody reads any more, where the client left."""

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

    async def whole(self) -> Json:
        async with aclosing(self.plan.run()) as events:
            return await completion(events, self.envelope)

    async def chunks(self) -> AsyncGenerator[Json, None]:
        async with aclosing(self.plan.run()) as events:
            async for chunk in chunks(events, self.envelope):
                yield chunk

    def heartbeat(self) -> Json:
        return heartbeat(self.envelope)

    def failure(self, error: APIError) -> Sequence[Json]:
        return (error.body,)


class Reply(Response):
    """Runs plans and sends their answer, whole or as server-sent events.

    It owns the request: when the client leaves, the plans are cancelled, their event iterators closed, and with them
    every engine and reward model call, streaming or not. Until the first event, or the first heartbeat of a stream that
    waits for it, an error is an HTTP status.
    """

    def __init__(self, answer: Answer, stream: bool) -> None:
        self._answer = answer
        self._stream = stream
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state["plans"] = self._answer.plans
        for plan in self._answer.plans:
            bill(scope, plan.account, plan.strategy, self._answer.trace_id)
        traces: Traces = scope["app"].state.traces
        traces.record(scope, self._answer.trace_id, self._answer.plans)
        searches = {} if BATCH_LINE in scope else {id(plan.account): plan.account for plan in self._answer.plans}
        drain: Drain = scope["app"].state.drain
        drain.searches |= searches
        try:
            await while_connected(receive, self._send(scope, receive, send))
        except ClientLeft:
            state["status"] = CLIENT_LEFT
            log.info("%s: the client left after %.1f s", self._answer.id, self._answer.plans[0].account.wall_s)
        finally:
            for key in searches:
                del drain.searches[key]

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = _Sender(send, self._answer)
        try:
            if self._stream:
                await sender.stream(self._answer.chunks())
            else:
                body = orjson.dumps(await self._answer.whole())
                await Response(body, media_type="application/json")(scope, receive, send)
        except Exception as error:
            await self._fail(error, sender, scope, receive, send)
        self._log()

    async def _fail(self, error: Exception, sender: "_Sender", scope: Scope, receive: Receive, send: Send) -> None:
        answer = translate(error)
        if type(answer) is APIError:
            log.error("%s: failed", self._answer.id, exc_info=error)
        else:
            log.info("%s: %s: %s", self._answer.id, kinds(error), Private(answer.message))
        if sender.begun:
            scope["state"]["status"] = answer.status
            await sender.fail(answer)
            return
        # To repeat a search that has already cost something doubles its cost.
        cost = any(plan.account.usage.completion_tokens for plan in self._answer.plans)
        await error_response(answer, {"x-should-retry": "false"} if cost else {})(scope, receive, send)

    def _log(self) -> None:
        for plan in self._answer.plans:
            account = plan.account
            log.info(
                "%s %s: %s, %d samples, %d tokens, %d PRM tokens, %.2f s%s",
                self._answer.id,
                self._answer.trace_id,
                plan.strategy,
                account.usage.samples,
                account.usage.completion_tokens,
                account.usage.prm_tokens,
                account.wall_s,
                f", stopped by {account.stop_reason}" if account.stop_reason else "",
            )


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
