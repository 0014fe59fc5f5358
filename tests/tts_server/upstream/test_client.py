import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from patience import NEVER_S

from tts_server.errors import EngineUnavailable, UpstreamError
from tts_server.upstream import body as upstream_body
from tts_server.upstream import client as upstream
from tts_server.upstream.client import Upstream
from tts_server.upstream.errors import retry_after

HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def saying(*answers: bytes) -> AsyncIterator[Upstream]:
    """An upstream whose connections are answered with these bytes in turn, and then closed."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        http = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", backoff_s=0.01)
        try:
            yield http
        finally:
            await http.close()


async def frames(http: Upstream) -> list[object]:
    return [frame async for frame in http.events("/x", {})]


@pytest.mark.parametrize(
    "stream",
    [
        b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n',
        b'data: {"a": 1}\r\n\r\ndata: {"b": 2}\r\n\r\n',
        b'data: {"a":\ndata:  1}\n\ndata: {\r\ndata: "b": 2\r\n: beat\r\ndata:\r\ndata: }\r\n\r\n',
        b'data: {"a": 1}\ndata: {"b": 2}\ndata: [DONE]\n',
        b'data: {"a": 1}\n\ndata: {\ndata: "b": 2\ndata: }\n',
        b': hello\n\nevent: x\nid: 7\ndata:{"a": 1}\n\ndata:\n\ndata: {"b": 2}\n\ndata: [DONE]\n\ndata: {"c": 3}\n\n',
    ],
    ids=[
        "plain",
        "CRLF, no DONE",
        "spread over lines",
        "no empty lines",
        "no last empty line",
        "all that the format allows",
    ],
)
def test_events_are_the_objects_of_the_stream(stream: bytes) -> None:
    async def main() -> None:
        async with saying(HEAD + stream) as http:
            # An empty object says that the stream has said itself that it is whole.
            assert await frames(http) == [{"a": 1}, {"b": 2}] + [{}] * (b"[DONE]" in stream)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"data: [1]\n\n", "not a JSON object"),
        (b"data: {\n\n", "not JSON"),
        (b"data: {\n\ndata: }\n\n", "not JSON"),
        (b"data: {\ndata: [DONE]\n\n", "not JSON"),
        (b'data: {"error": "no"}\n\n', "no"),
        (b'data: {"error":\ndata: "no"}\n\n', "no"),
    ],
)
def test_what_is_no_frame_is_an_error(stream: bytes, words: str) -> None:
    async def main() -> None:
        async with saying(HEAD + stream) as http:
            with pytest.raises(UpstreamError, match=words):
                await frames(http)

    asyncio.run(main())


def test_an_endless_line_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_body, "MAX_LINE", 1000)

    async def main() -> None:
        async with saying(
            HEAD + b"data: " + b"x" * 2000, HEAD + b"data: {\n" * 1001, HEAD + b'"' + b"x" * 2000 + b'"'
        ) as http:
            with pytest.raises(UpstreamError, match="a line of more than 1000 bytes"):
                await frames(http)
            with pytest.raises(UpstreamError, match="an event of more than 1000 bytes"):
                await frames(http)
            with pytest.raises(UpstreamError, match="longer than 1000 bytes"):
                await http.get("/x")

    asyncio.run(main())


def test_a_connection_that_closes_without_an_answer_is_tried_again() -> None:
    async def main() -> None:
        async with saying(b"", HEAD + b'{"a": 1}', b"", b"", b"") as http:
            assert await http.get("/x") == {"a": 1}
            with pytest.raises(EngineUnavailable, match="without an answer"):
                await http.get("/x")

    asyncio.run(main())


def test_an_answer_that_is_not_json_is_an_error() -> None:
    async def main() -> None:
        async with saying(HEAD + b"<html>") as http:
            with pytest.raises(UpstreamError, match="answer to /x is not JSON"):
                await http.get("/x")

    asyncio.run(main())


def test_unused_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()
        closed.set()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            http = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await http.get("/x")
            await http.trim()
            assert not closed.is_set()
            monkeypatch.setattr(upstream, "IDLE_S", 0.0)
            await http.trim()
            await asyncio.wait_for(closed.wait(), NEVER_S)
            await http.close()

    asyncio.run(main())


@pytest.mark.parametrize(("value", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", None), ("", None)])
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds


def test_retry_after_as_a_date() -> None:
    wait = retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert wait is not None
    assert 90 < wait <= 100
    assert retry_after({}) is None
