"""An upstream that answers at once: what a proxy in front of it takes is the proxy's own.

It speaks plain OpenAI chat. Answers are built once a shape, so that it costs next to nothing; a stream tells each
sample in one piece.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import orjson

MODEL = "stub"
ANSWER = "Two and two make four.\n\nThe answer is \\boxed{4}."
TOKENS = 16
"""Of each sample, as its usage tells."""
_CREATED = 1_700_000_000


@asynccontextmanager
async def stub() -> AsyncIterator[str]:
    """Its origin while it serves, in this event loop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class _Connection(asyncio.Protocol):
    """One connection of a client that asks one request after the other."""

    def __init__(self) -> None:
        self._waiting = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("not a stream")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head, rest = self._waiting[:end], self._waiting[end + 4 :]
            length = _length(head)
            if len(rest) < length:
                return
            self._waiting = rest[length:]
            method, path = head.split(b" ", 2)[:2]
            self._transport.write(answer(method, path, rest[:length]))


def answer(method: bytes, path: bytes, body: bytes) -> bytes:
    """The whole HTTP response to a request."""
    if method == b"GET" and path.endswith(b"/models"):
        card = {"id": MODEL, "object": "model", "created": _CREATED, "owned_by": "stub"}
        return _whole(b"200 OK", {"object": "list", "data": [card]})
    if method == b"POST" and path.endswith(b"/chat/completions"):
        asked = orjson.loads(body)
        options = asked.get("stream_options") or {}
        n = asked.get("n") or 1
        return _stream(n, usage=bool(options.get("include_usage"))) if asked.get("stream") else _completion(n)
    return _whole(b"404 Not Found", {"error": {"message": "no such path", "type": "x", "param": None, "code": None}})


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _usage(n: int) -> dict[str, int]:
    return {"prompt_tokens": 12, "completion_tokens": n * TOKENS, "total_tokens": 12 + n * TOKENS}


@cache
def _completion(n: int) -> bytes:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    choices = [{"index": i, "message": message, "finish_reason": "stop", "logprobs": None} for i in range(n)]
    return _whole(b"200 OK", _body("chat.completion", choices) | {"usage": _usage(n)})


@cache
def _stream(n: int, *, usage: bool) -> bytes:
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        ({"content": ANSWER}, None),
        ({}, "stop"),
    ]
    frames = [
        _body("chat.completion.chunk", [{"index": i, "delta": delta, "finish_reason": reason}])
        for delta, reason in deltas
        for i in range(n)
    ]
    if usage:
        frames.append(_body("chat.completion.chunk", []) | {"usage": _usage(n)})
    text = b"".join(b"data: " + orjson.dumps(frame) + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)


def _body(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": _CREATED, "model": MODEL, "choices": choices}


def _whole(status: bytes, body: dict[str, Any]) -> bytes:
    content = orjson.dumps(body)
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(content))
    return head + content
