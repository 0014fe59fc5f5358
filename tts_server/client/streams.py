"""A streamed answer on its connection: opened at its beginning, closed at its end or before."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpx

from tts_server.client.errors import StreamCut, TTSError, UnexpectedAnswer, translated
from tts_server.client.events import Event, Reader
from tts_server.client.results import ChatResult

MEDIA_TYPE = "text/event-stream"


class _Stream:
    """What both kinds of streams know."""

    def __init__(self) -> None:
        self._begun = False
        self._response: httpx.Response | None = None
        self._reader = Reader()

    def _opened(self, response: httpx.Response) -> httpx.Response:
        self._response = response
        self._reader = Reader(response.headers.get("x-request-id"))
        return response

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("a stream is read once")
        self._begun = True

    def _result(self) -> ChatResult:
        if self._reader.result is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._reader.result

    @contextmanager
    def _explained(self, response: httpx.Response) -> Iterator[None]:
        """Turns what breaks a stream into our errors, with what had come."""
        try:
            with translated():
                media_type = response.headers.get("content-type", "").partition(";")[0]
                if media_type != MEDIA_TYPE:
                    raise UnexpectedAnswer(f"The server answers with {media_type or 'no type'!r}, not with a stream.")
                try:
                    yield
                except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                    # The answer may be whole even though the connection did not end well.
                    if self._reader.result is None:
                        raise StreamCut(f"The stream was cut: {error or type(error).__name__}") from error
        except TTSError as error:
            error.partial = self._reader.partial()
            raise


class ChatStream(_Stream):
    """The events of one answer, read once. Closing it, or leaving its `with` or its `for`, ends the server's work.

    The request is sent when the `with` is entered, or else when the first event is asked for.

    Args:
        send: sends the request.
    """

    def __init__(self, send: Callable[[], httpx.Response]) -> None:
        super().__init__()
        self._send = send

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """The events.

        Raises:
            TTSError: the server refused or failed, or the stream was cut; `partial` is what had come.
            RuntimeError: they have been asked for before.
        """
        self._begin()
        try:
            response = self._open()
            with self._explained(response):
                for piece in response.iter_bytes():
                    yield from self._reader.feed(piece)
                self._reader.end()
        finally:
            self.close()

    def result(self) -> ChatResult:
        """The whole answer; reads the stream if nobody has.

        Raises:
            TTSError: as reading does.
            RuntimeError: it was left before its end.
        """
        if not self._begun:
            for _ in self:
                pass
        return self._result()

    def close(self) -> None:
        """Closes the connection, unless the answer is whole."""
        if self._response is not None:
            self._response.close()

    def _open(self) -> httpx.Response:
        return self._response or self._opened(self._send())


class AsyncChatStream(_Stream):
    """As `ChatStream`, for `async with` and `async for`."""

    def __init__(self, send: Callable[[], Awaitable[httpx.Response]]) -> None:
        super().__init__()
        self._send = send

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """As `ChatStream.__iter__`; a `for` that is left early is only closed at once inside an `async with`."""
        self._begin()
        try:
            response = await self._open()
            with self._explained(response):
                async for piece in response.aiter_bytes():
                    for event in self._reader.feed(piece):
                        yield event
                self._reader.end()
        finally:
            await self.close()

    async def result(self) -> ChatResult:
        """As `ChatStream.result`."""
        if not self._begun:
            async for _ in self:
                pass
        return self._result()

    async def close(self) -> None:
        """As `ChatStream.close`."""
        if self._response is not None:
            await self._response.aclose()

    async def _open(self) -> httpx.Response:
        return self._response or self._opened(await self._send())
