"""A server that answers each request as a list says, down to the bytes, and breaks off where it says so."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "fake",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Four."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    body: Any = None
    """JSON, or bytes as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)
    frames: Sequence[Any] | None = None
    """Events instead of a body: JSON, or text as it is."""
    cut: bool = False
    """Whether the connection breaks before the answer's end."""
    hang: bool = False
    """Whether the answer never ends."""

    def head(self, length: int | None) -> bytes:
        kind = "application/json" if self.frames is None else "text/event-stream"
        lines = {"content-type": kind, "x-request-id": "request-7", **self.headers}
        if length is not None:
            lines["content-length"] = str(length)
        else:
            lines["transfer-encoding"] = "chunked"
        said = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {self.status} Said\r\n{said}\r\n".encode()


NOTHING = Reply(status=0)
"""The connection breaks before any answer."""


@dataclass
class Scripted:
    """What it was asked, and what it still has to say; when it has said all, it answers `WHOLE`."""

    url: str
    replies: list[Reply]
    requests: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    """Target, JSON body and headers."""
    connections: int = 0
    left: int = 0
    """Hanging requests whose client went away."""


@asynccontextmanager
async def scripted(*replies: Reply) -> AsyncIterator[Scripted]:
    """Serves on a free port of this machine, in this event loop."""
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        serving[asyncio.create_task(_serve(state, reader, writer))] = writer

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    state = Scripted(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", list(replies))
    try:
        yield state
    finally:
        server.close()
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*serving)


async def _serve(state: Scripted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await _answer(state, reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(state: Scripted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Reads and answers one request; whether the connection lives on."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    state.requests.append((first.split()[1], json.loads(body) if body else None, headers))
    reply = state.replies.pop(0) if state.replies else Reply(body=WHOLE)
    if reply is not NOTHING:
        await _say(reply, writer)
    if reply.hang:
        await reader.read(1)
        state.left += 1
    return not (reply.cut or reply.hang or reply is NOTHING)


async def _say(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.frames is None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        whole = len(body)
        if reply.cut:
            body = body[: whole // 2]
        if not reply.hang:
            writer.write(reply.head(whole) + body)
        await writer.drain()
        return
    writer.write(reply.head(None))
    for frame in reply.frames:
        text = frame if isinstance(frame, str) else f"data: {json.dumps(frame)}\n\n"
        piece = text.encode()
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await writer.drain()
    if not (reply.cut or reply.hang):
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def chunk(delta: dict[str, Any], index: int = 0, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A frame of a streamed chat."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return {**WHOLE, "object": "chat.completion.chunk", "usage": None, "choices": [choice], **fields}


DONE = "data: [DONE]\n\n"
