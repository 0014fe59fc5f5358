"""One connection to an upstream that says what each test wants, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
from patience import NEVER_S
from serving import until

from tts_server.upstream.connection import Lane

ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Word: a, b\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


class Upstream:
    """Answers each request with the next of its answers, a piece at a time."""

    def __init__(self, answers: Sequence[Sequence[bytes]], closes: bool) -> None:
        self.connections = 0
        self.live = 0
        self._answers = list(answers)
        self._closes = closes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.live += 1
        try:
            while self._answers:
                await reader.readuntil(b"\r\n\r\n")
                for piece in self._answers.pop(0):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
                if self._closes:
                    break
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.live -= 1


@asynccontextmanager
async def lane_to(
    *answers: Sequence[bytes], closes: bool = False, read_timeout_s: float = 10
) -> AsyncIterator[tuple[Lane, Upstream]]:
    upstream = Upstream(answers, closes)
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    url = httpx.URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    lane = Lane(url, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connect_timeout_s=NEVER_S, read_timeout_s=read_timeout_s)
    try:
        yield lane, upstream
    finally:
        lane.close()
        server.close()
        await server.wait_closed()
        await until(lambda: not upstream.live)


async def body(lane: Lane) -> bytes:
    await lane.ask(ASKED)
    return b"".join([piece async for piece in lane.pieces()])


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_is_read_however_it_is_cut_and_its_connection_kept(answer: bytes, size: int) -> None:
    async def main() -> None:
        cut = [answer[i : i + size] for i in range(0, len(answer), size)]
        async with lane_to(cut, cut) as (lane, upstream):
            for _ in range(2):
                assert await body(lane) == b"hello"
                assert lane.status == 200
                lane.finish()
            assert upstream.connections == 1

    asyncio.run(main())


def test_headers_are_found_by_any_case() -> None:
    async def main() -> None:
        async with lane_to([WHOLE]) as (lane, _):
            await lane.ask(ASKED)
            assert lane.headers["x-word"] == "a, b"

    asyncio.run(main())


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def main() -> None:
        answers = [[b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"], [WHOLE]]
        async with lane_to(*answers, closes=True) as (lane, upstream):
            assert await body(lane) == b"hello"
            lane.finish()
            assert await body(lane) == b"hello"
            assert upstream.connections == 2

    asyncio.run(main())


def test_a_provisional_answer_is_passed_over() -> None:
    async def main() -> None:
        async with lane_to([b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE]) as (lane, _):
            assert await body(lane) == b"hello"

    asyncio.run(main())


def test_a_connection_whose_answer_was_not_read_to_the_end_is_not_used_again() -> None:
    async def main() -> None:
        async with lane_to([WHOLE[:-2]], [WHOLE]) as (lane, upstream):
            await lane.ask(ASKED)
            lane.finish()
            assert await body(lane) == b"hello"
            assert upstream.connections == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer", [WHOLE[:-2], CHUNKED[:-7], WHOLE[:10], b""], ids=["whole", "chunked", "head", "none"]
)
def test_an_answer_that_breaks_off_is_an_error(answer: bytes) -> None:
    async def main() -> None:
        async with lane_to([answer], closes=True) as (lane, _):
            with pytest.raises(httpx.RemoteProtocolError):
                await body(lane)

    asyncio.run(main())


def test_what_is_no_http_is_an_error() -> None:
    async def main() -> None:
        async with lane_to([b"what?\r\n\r\n"]) as (lane, _):
            with pytest.raises(httpx.RemoteProtocolError):
                await body(lane)

    asyncio.run(main())


def test_silence_is_an_error() -> None:
    async def main() -> None:
        async with lane_to([WHOLE[:-2]], read_timeout_s=0.05) as (lane, _):
            with pytest.raises(httpx.ReadTimeout):
                await body(lane)

    asyncio.run(main())


def test_nobody_listening_is_an_error() -> None:
    async def main() -> None:
        async with lane_to() as (lane, _):
            pass
        with pytest.raises(httpx.ConnectError):
            await lane.ask(ASKED)

    asyncio.run(main())


def test_what_is_not_read_makes_the_upstream_wait() -> None:
    async def main() -> None:
        size = 64 * 2**20
        async with lane_to([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, bytes(size)]) as (lane, _):
            await lane.ask(ASKED)
            await asyncio.sleep(0.2)
            pieces = aiter(lane.pieces())
            held = len(await anext(pieces))
            assert held < 8 * 2**20
            assert held + sum([len(piece) async for piece in pieces]) == size

    asyncio.run(main())
