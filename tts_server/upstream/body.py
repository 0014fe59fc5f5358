"""What an upstream's answer holds: a plain body, or the data of server-sent events, both of bounded size."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson

from tts_server.errors import UpstreamError
from tts_server.upstream.connection import Lane

MAX_LINE = 8 * 2**20
"""Bytes of one line of a stream, or of one plain answer."""
DONE_DATA = b"[DONE]"
"""With it an upstream says that its stream is whole."""
_DRAIN_S = 1.0


async def whole(lane: Lane, limit: int | None = None) -> bytes:
    """All of a plain answer.

    Raises:
        UpstreamError: it is longer than so many bytes, or than `MAX_LINE`.
    """
    body, limit = bytearray(), MAX_LINE if limit is None else limit
    async for piece in lane.pieces():
        body += piece
        if len(body) > limit:
            raise UpstreamError(f"The upstream's answer is longer than {limit} bytes.")
    return bytes(body)


class _Event:
    """Puts the data of one event together, which may stand in several lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, line: bytes) -> tuple[bytes, Any] | None:
        """The event's data and the JSON that it is, where this line ends it.

        A line that is JSON by itself is an event, also where no empty line follows: no part of an object is JSON.

        Raises:
            UpstreamError: the event is too large, or not JSON.
        """
        if not line.startswith(b"data:"):
            return self.end() if self._parts and not line.strip() else None
        data = line[5:].strip()
        if not data:
            return None
        if not self._parts:
            if data == DONE_DATA:
                return data, None
            try:
                return data, orjson.loads(data)
            except orjson.JSONDecodeError:
                self._size = 0
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_LINE:
            raise UpstreamError(f"The upstream's stream holds an event of more than {MAX_LINE} bytes.")
        return None

    def end(self) -> tuple[bytes, Any] | None:
        """The event that no line has ended yet, if there is one."""
        if not self._parts:
            return None
        data, self._parts = b"\n".join(self._parts), []
        try:
            return data, orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamError("The upstream's stream holds something that is not JSON.") from None


async def events(pieces: AsyncIterator[bytes]) -> AsyncGenerator[tuple[bytes, Any], None]:
    """The data of each server-sent event, and the JSON that it is; of `DONE_DATA` None.

    Comments and other fields are passed over.
    """
    # A line that comes in many pieces is put together once: to look through it at each of them takes far too long.
    begun: list[bytes] = []
    size = 0
    event = _Event()
    async for piece in pieces:
        if b"\n" in piece:
            *lines, rest = b"".join([*begun, piece]).split(b"\n")
            for line in lines:
                if found := event.add(line):
                    yield found
            begun, size = [rest], len(rest)
        else:
            begun.append(piece)
            size += len(piece)
        if size > MAX_LINE:
            raise UpstreamError(f"The upstream's stream holds a line of more than {MAX_LINE} bytes.")
    if found := event.end():
        yield found


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads the answer's end, without which its connection could not be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass
    except TimeoutError:
        return
