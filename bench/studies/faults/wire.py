"""HTTP/1.1 as an upstream speaks it, with every byte in its own hand."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

Handler = Callable[["Exchange"], Awaitable[None]]
FLUSHED_S = 5.0
"""Whoever closes the connection so soon behind an answer may not have read all of it."""

_REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Unavailable"}


class Exchange:
    """One request and the answer to it.

    Args:
        connection: that it came by.
        method: of the request.
        path: of the request.
        body: of the request, if there is one.
    """

    def __init__(self, connection: "Connection", method: str, path: str, body: Any) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.on_unread: Callable[[], None] = lambda: None
        """Called, perhaps behind the answer's end, where it may not have been read to its end."""
        self._connection = connection

    def begin(self) -> None:
        """Status 200 and the headers of a stream."""
        self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def raw(self, data: bytes) -> None:
        self._connection.transport.write(data)

    def whole(self, status: int, body: Any, headers: str = "", media_type: str = "application/json") -> None:
        """A whole answer."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {media_type}\r\n{headers}"
        self.raw(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)

    def end(self) -> None:
        """The end of a stream."""
        self.raw(b"0\r\n\r\n")

    def close(self) -> None:
        """Closes the connection behind what was written."""
        self._connection.close()

    def reset(self) -> None:
        """Closes it at once."""
        self._connection.reset()


class Connection(asyncio.Protocol):
    """A caller's connection, which asks one thing after the other."""

    def __init__(self, handle: Handler, opened: "set[Connection]") -> None:
        self.transport: asyncio.Transport
        self._handle = handle
        self._opened = opened
        self._come = b""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._answered_at = 0.0
        self._closed = False
        """By this end."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._task is not None and not self._task.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("not a stream")
        self.transport = transport
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        self._come += data
        end = self._come.find(b"\r\n\r\n")
        if end < 0 or len(self._come) < (whole := end + 4 + _length(self._come[:end])):
            return
        method, path = self._come[:end].split(b" ", 2)[:2]
        content, self._come = self._come[end + 4 : whole], self._come[whole:]
        self._exchange = Exchange(self, method.decode(), path.decode(), orjson.loads(content) if content else None)
        self._task = asyncio.create_task(self._answer(self._exchange))

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        if not self._closed:
            self._leave_unread()
        if self._task:
            self._task.cancel()

    def close(self) -> None:
        """Closes the connection behind what was written."""
        self._closed = True
        self.transport.close()

    def reset(self) -> None:
        """Closes it at once."""
        self._closed = True
        self._leave_unread()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self.transport.abort()

    def _leave_unread(self) -> None:
        late = asyncio.get_running_loop().time() - self._answered_at < FLUSHED_S
        if self._exchange and (self.busy or late):
            self._exchange.on_unread()

    async def _answer(self, exchange: Exchange) -> None:
        await self._handle(exchange)
        self._answered_at = asyncio.get_running_loop().time()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
