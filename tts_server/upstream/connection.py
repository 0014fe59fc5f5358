"""One HTTP/1.1 connection to an upstream, which carries one request after the other.

A general client looks after pools, redirects, proxies and cookies, none of which an upstream needs, and takes longer
over a short answer than all the rest of the server. What goes wrong is said with httpx's errors.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from typing import cast

import httptools
import httpx

__all__ = ["Lane"]

_FULL = 2**20
"""Bytes that wait to be read, beyond which the upstream has to wait too."""
_EMPTY = 2**18
"""Bytes in a row that bring nothing of a body, as heads and trailers do not, beyond which it is no answer."""


class Lane(asyncio.Protocol):
    """A connection, opened when it is first used and again where the upstream closed it meanwhile.

    Args:
        url: of which the scheme, host and port count.
        context: for https.
        connect_timeout_s: until it is connected.
        read_timeout_s: of silence while an answer is awaited.
    """

    def __init__(
        self, url: httpx.URL, context: ssl.SSLContext, connect_timeout_s: float, read_timeout_s: float
    ) -> None:
        secure = url.scheme == "https"
        self._host, self._port = url.host, url.port or (443 if secure else 80)
        self._ssl = context if secure else None
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._transport: asyncio.Transport | None = None
        self._news: asyncio.Future[None] | None = None
        """Set when whoever waits for the upstream has something to look at."""
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self._has_head = self._complete = self._stays = self._paused = False
        self._error: httpx.TransportError | None = None
        self._body: list[bytes] = []
        self._waiting = self._empty = 0

    @property
    def headers(self) -> httpx.Headers:
        """Of the answer."""
        return httpx.Headers(self._headers)

    async def ask(self, request: bytes) -> None:
        """Sends a request and waits for its answer's status and headers.

        Raises:
            httpx.TransportError: it cannot be connected, or closes, stalls or speaks no HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            await self._connect()
        self._begin()
        if self._transport:
            self._transport.write(request)
        while not self._has_head:
            await self._wait()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes.

        Raises:
            httpx.TransportError: it closes, stalls or breaks off.
        """
        while self._body or not self._complete:
            if not self._body:
                await self._wait()
                continue
            piece = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            self._waiting = 0
            if self._paused and self._transport:
                self._paused = False
                self._transport.resume_reading()
            yield piece

    def finish(self) -> None:
        """Keeps the connection if its answer was read to the end and it stays open, else closes it."""
        if not (self._complete and not self._body and self._stays):
            self.close()

    def close(self) -> None:
        """Closes the connection at once; what still waits for it fails."""
        if self._transport:
            self._transport.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        name = self._host if self._ssl else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(lambda: self, self._host, self._port, ssl=self._ssl, server_hostname=name)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error

    async def _wait(self) -> None:
        """Until something has come.

        Raises:
            httpx.TransportError: the connection's end has come, or nothing for too long.
        """
        if self._error is None:
            loop = asyncio.get_running_loop()
            self._news = loop.create_future()
            late = loop.call_later(self._read_timeout_s, self._give_up)
            try:
                await self._news
            finally:
                late.cancel()
                self._news = None
        if self._error is not None and not (self._body or self._complete):
            raise self._error

    def _give_up(self) -> None:
        self._error = self._error or httpx.ReadTimeout("")
        self._tell()

    def _tell(self) -> None:
        if self._news and not self._news.done():
            self._news.set_result(None)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own is none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._complete:
            # Nobody asked for more.
            self.close()
            return
        self._empty += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(str(error))
        if self._empty > _EMPTY:
            self._fail(f"more than {_EMPTY} bytes that are no body")
        if self._waiting > _FULL and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._tell()

    def _fail(self, why: str) -> None:
        self._error = self._error or httpx.RemoteProtocolError(why)
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._has_head and not self._complete and self._ends_with_connection and exc is None:
            self._complete = True
        elif not self._complete:
            self._error = self._error or httpx.RemoteProtocolError("the connection was closed")
        self._tell()

    @property
    def _ends_with_connection(self) -> bool:
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("an answer to nothing")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._headers.clear()
        else:
            self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._waiting += len(body)
        self._empty = 0

    def on_message_complete(self) -> None:
        self._complete = self._has_head
        self._stays = self._parser.should_keep_alive()
