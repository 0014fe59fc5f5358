"""A request's life: what it runs ends when its client leaves, and its errors become its answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tts_server.connection import ClientLeft, while_connected
from tts_server.errors import APIError, translate
from tts_server.handlers import error_response
from tts_server.plan import Plan
from tts_server.quotas import bill
from tts_server.reply import Envelope, chunks, completion, heartbeat

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
"""A stream that is silent for as long gets a chunk that says nothing, so that none is silent for 15 s: LangChain gives
up after 120 s without a chunk, and proxies sooner."""

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class ChatReply(Response):
    """Runs a plan and sends its answer, whole or as server-sent events.

    It owns the request: when the client leaves, the plan is cancelled, its event iterator closed, and with it every
    engine and reward model call, streaming or not. Until the first event, or the first heartbeat of a stream that waits
    for it, an error is an HTTP status.
    """

    def __init__(self, plan: Plan, envelope: Envelope, stream: bool) -> None:
        self._plan = plan
        self._envelope = envelope
        self._stream = stream
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bill(scope, self._plan.account)
        try:
            await while_connected(receive, self._answer(scope, receive, send))
        except ClientLeft:
            log.info("%s: the client left after %.1f s", self._envelope.id, self._plan.account.wall_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        events = self._plan.run()
        sender = _Sender(send, self._envelope)
        try:
            async with aclosing(events):
                if self._stream:
                    await sender.stream(chunks(events, self._envelope))
                else:
                    body = orjson.dumps(await completion(events, self._envelope))
                    await Response(body, media_type="application/json")(scope, receive, send)
        except Exception as error:
            await self._fail(error, sender, scope, receive, send)
        self._log()

    async def _fail(self, error: Exception, sender: "_Sender", scope: Scope, receive: Receive, send: Send) -> None:
        answer = translate(error)
        if type(answer) is APIError:
            log.error("%s: failed", self._envelope.id, exc_info=error)
        else:
            log.info("%s: %s", self._envelope.id, answer.message)
        if sender.begun:
            await sender.fail(answer)
            return
        # To repeat a search that has already cost something doubles its cost.
        spent = {"x-should-retry": "false"} if self._plan.account.usage.completion_tokens else {}
        await error_response(answer, spent)(scope, receive, send)

    def _log(self) -> None:
        account, envelope = self._plan.account, self._envelope
        log.info(
            "%s %s: %s, %d samples, %d tokens, %d PRM tokens, %.2f s%s",
            envelope.id,
            envelope.trace_id,
            envelope.strategy,
            account.usage.samples,
            account.usage.completion_tokens,
            account.usage.prm_tokens,
            account.wall_s,
            f", stopped by {account.stop_reason}" if account.stop_reason else "",
        )


class _Sender:
    """Server-sent events over ASGI; the response begins with the first of them."""

    def __init__(self, send: Send, envelope: Envelope) -> None:
        self.begun = False
        self._send = send
        self._envelope = envelope
        self._sent_at = time.monotonic()
        self._lock = asyncio.Lock()

    async def stream(self, rendered: AsyncGenerator[dict[str, Any], None]) -> None:
        # It beats from the start: a first token may wait for long, and then the response begins without it.
        beat = asyncio.create_task(self._beat())
        try:
            async with aclosing(rendered):
                async for chunk in rendered:
                    await self._frame(orjson.dumps(chunk))
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat
        await self._end()

    async def fail(self, error: APIError) -> None:
        await self._frame(orjson.dumps(error.body))
        await self._end()

    async def _end(self) -> None:
        await self._frame(b"[DONE]")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _frame(self, data: bytes) -> None:
        self._sent_at = time.monotonic()
        async with self._lock:
            if not self.begun:
                start: Message = {"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS}
                await self._send(start)
                self.begun = True
            # Some clients split at "\n\n" and nothing else.
            await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def _beat(self) -> None:
        while True:
            left = self._sent_at + HEARTBEAT_S - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
            else:
                await self._frame(orjson.dumps(heartbeat(self._envelope)))
