"""What real clients send on a connection beside a plain request, and what is none."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from serving import body, serving
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tts_server.engines.fake import FakeEngine
from tts_server.middleware.http1 import MAX_HEAD_BYTES

CHAT = orjson.dumps(body())
LENGTH = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(CHAT)
CHUNKED = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, CHAT[:5], len(CHAT) - 5, CHAT[5:])
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    "close": b"connection: close, upgrade\r\nupgrade: h2c\r\n",
    "tls": b"upgrade: TLS/1.0\r\nconnection: upgrade\r\n",
    "websocket": b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
}


async def answers(client: httpx.AsyncClient, *sent: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer to what is sent piece by piece, until the server closes."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        for piece in sent:
            writer.write(piece)
            await writer.drain()
            # Each has to come alone.
            await client.get("/health")
        return [answer async for answer in _answers(reader)]
    finally:
        writer.close()


async def said(*sent: bytes, engine: FakeEngine | None = None) -> list[tuple[int, bytes]]:
    async with serving(engine) as client:
        return await answers(client, *sent)


async def _answers(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        yield int(head.split()[1]), await reader.readexactly(length)
        if b"connection: close" in lines:
            return


@pytest.mark.parametrize("offer", OFFERS)
def test_a_request_that_offers_another_protocol_keeps_its_body(offer: str) -> None:
    async def main() -> None:
        closes = offer == "close"
        async with serving() as client:
            for sent in (LENGTH + CHAT, CHUNKED + PIECES):
                whole = POST + OFFERS[offer] + sent
                for cut in (0, 20, 90, -20, -len(CHAT)):
                    got = await answers(client, whole[:cut], whole[cut:] + (b"" if closes else LAST))
                    assert [status for status, _ in got] == ([200] if closes else [200, 200])
                    assert "2 + 2" in orjson.loads(got[0][1])["choices"][0]["message"]["content"]

    asyncio.run(main())


def test_requests_behind_an_offer_are_answered_in_their_order() -> None:
    sent = POST + OFFERS["h2c"] + LENGTH + CHAT
    models = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + OFFERS["websocket"] + b"\r\n"
    got = asyncio.run(said(HEALTH + sent + models + sent + LAST))
    assert [status for status, _ in got] == [200] * 5
    assert [orjson.loads(body)["object"] for _, body in got[1:4]] == ["chat.completion", "list", "chat.completion"]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "Pause on PRI/Upgrade"),
        (b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n", "its target is not understood"),
        (b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n", "its target is not understood"),
        (b"BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n", "Invalid method encountered"),
        (POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "Invalid method encountered"),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(sent: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ((status, refused),) = asyncio.run(said(sent))
    error = orjson.loads(refused)["error"]
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_value")
    assert error["message"].startswith(f"This is not an HTTP/1.1 request: {why}")
    assert f"127.0.0.1 was refused: {error['message']}" in caplog.text
    assert ("It speaks TLS" in caplog.text) is sent.startswith(b"\x16")


def test_what_cannot_be_read_behind_a_request_does_not_garble_its_answer() -> None:
    engine = FakeEngine(token_s=0.01)
    ((status, answer),) = asyncio.run(said(POST + LENGTH + CHAT + b"and more", engine=engine))
    assert status == 200
    assert orjson.loads(answer)["object"] == "chat.completion"


def test_a_body_that_breaks_its_own_rules_is_refused() -> None:
    ((status, refused),) = asyncio.run(said(POST + CHUNKED + b"5\r\n{....\r\nno size\r\n"))
    assert (status, b"This is not an HTTP/1.1 request" in refused) == (400, True)


@pytest.mark.parametrize("begin", [b"GET /health HTTP/1.1\r\n", POST + CHUNKED + b"0\r\n"], ids=["headers", "trailers"])
def test_endless_headers_are_given_up(begin: bytes) -> None:
    lines = [b"x-%d: " % number + b"y" * 8000 + b"\r\n" for number in range(MAX_HEAD_BYTES // 8000 + 9)]

    async def main() -> list[tuple[int, bytes]]:
        try:
            return await said(begin, *lines)
        except ConnectionError:
            # It was closed while more came.
            return []

    got = asyncio.run(main())
    assert [status for status, _ in got] in ([431], [])


def test_uvicorn_still_reads_as_this_server_does() -> None:
    theirs = inspect.getsource(HttpToolsProtocol)
    inside = "_unset_keepalive_if_required()", "self.parser.feed_data(data)", "except httptools.HttpParserUpgrade"
    fields = ("parser", "cycle", "pipeline", "transport", "client", "headers", "url", "timeout_keep_alive_task")
    changed = [part for part in inside if part not in inspect.getsource(HttpToolsProtocol.data_received)]
    changed += [name for name in fields if f"self.{name}" not in theirs]
    assert changed == [], (
        f"This uvicorn no longer has {changed}. `Http1` stands in for its `HttpToolsProtocol.data_received` and uses "
        "these parts of it. Read what uvicorn does there now, do the same in tts_server/middleware/http1.py (stop the "
        "timer that closes an idle connection, feed the parser, handle its errors), then change this list."
    )
