"""What an upstream's answer holds: a plain body, or the data of server-sent events, both of bounded size."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from tts_server.errors import UpstreamError
from tts_server.upstream.connection import Lane

MAX_LINE = 8 * 2**20
"""Bytes of one line of a stream, or of one plain answer."""
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


async def data_fields(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The `data` fields of a stream of server-sent events; comments and other fields are passed over."""
    # A line that comes in many pieces is put together once: to look through it at each of them takes far too long.
    begun: list[bytes] = []
    size = 0
    async for piece in pieces:
        if b"\n" in piece:
            *lines, rest = b"".join([*begun, piece]).split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and (data := line[5:].strip()):
                    yield data
            begun, size = [rest], len(rest)
        else:
            begun.append(piece)
            size += len(piece)
        if size > MAX_LINE:
            raise UpstreamError(f"The upstream's stream holds a line of more than {MAX_LINE} bytes.")


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads the answer's end, without which its connection could not be used again."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in pieces:
                pass
    except TimeoutError:
        return
