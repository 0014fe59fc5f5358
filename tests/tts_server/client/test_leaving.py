"""What ends when the client leaves."""

import asyncio

import httpx
import pytest
from asking import asked
from patience import NEVER_S
from serving import serving, until

from tts_server.client import TTS, AsyncClient, Client, ConnectionFailed, Delta, TimedOut
from tts_server.engines.fake import FakeEngine

LONG = TTS("self_consistency", n=4)


def slow_engine() -> FakeEngine:
    return FakeEngine(lambda request: "word " * 5000, token_s=0.002)


def test_cancelling_a_call_ends_the_server_s_work() -> None:
    async def main() -> None:
        engine = slow_engine()
        async with serving(engine) as http, AsyncClient(str(http.base_url), model="fake") as client:
            call = asyncio.create_task(client.chat("?", tts=LONG))
            await until(lambda: engine.live == 4)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: engine.live == 0)
            assert engine.generated < 4 * 5000

    asyncio.run(main())


def test_a_timeout_ends_the_server_s_work() -> None:
    async def main() -> None:
        engine = slow_engine()
        async with serving(engine) as http, AsyncClient(str(http.base_url), model="fake") as client:
            with pytest.raises(TimedOut):
                await client.chat("?", tts=LONG, timeout=httpx.Timeout(NEVER_S, read=0.3))
            await until(lambda: engine.live == 0)
            assert engine.generated < 4 * 5000

    asyncio.run(main())


def test_leaving_a_stream_ends_the_server_s_work() -> None:
    async def in_block(client: AsyncClient, engine: FakeEngine) -> None:
        async with client.stream("?") as stream:
            async for event in stream:
                assert isinstance(event, Delta)
                break

    async def closed(client: AsyncClient, engine: FakeEngine) -> None:
        stream = client.stream("?", tts=LONG)
        async with stream:
            await until(lambda: engine.live == 4)
            await stream.close()
            with pytest.raises(ConnectionFailed):
                await stream.result()

    async def cancelled(client: AsyncClient, engine: FakeEngine) -> None:
        reading = asyncio.create_task(client.stream("?", tts=LONG).result())
        await until(lambda: engine.live == 4)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    async def unblocked(client: AsyncClient, engine: FakeEngine) -> None:
        async for _ in client.stream("?"):
            break

    async def main() -> None:
        engine = slow_engine()
        async with serving(engine) as http, AsyncClient(str(http.base_url), model="fake") as client:
            for leave in (in_block, closed, cancelled, unblocked):
                await leave(client, engine)
                await until(lambda: engine.live == 0)
        assert engine.generated < 5000

    asyncio.run(main())


def test_leaving_a_stream_without_await_ends_the_server_s_work() -> None:
    def in_block(client: Client) -> None:
        with client.stream("?") as stream:
            for _ in stream:
                break

    def unblocked(client: Client) -> None:
        for _ in client.stream("?"):
            break

    def failing(client: Client) -> None:
        def read() -> None:
            with client.stream("?") as stream:
                for _ in stream:
                    raise KeyError

        with pytest.raises(KeyError):
            read()

    async def main() -> None:
        engine = slow_engine()
        async with serving(engine) as http:
            with Client(str(http.base_url), model="fake") as client:
                for leave in (in_block, unblocked, failing):
                    await asyncio.to_thread(leave, client)
                    await until(lambda: engine.live == 0)
        assert engine.generated < 5000

    asyncio.run(main())


def test_a_stream_is_read_once() -> None:
    def ask(client: Client) -> None:
        with client.stream("?") as stream:
            assert list(stream)
            with pytest.raises(RuntimeError, match="once"):
                list(stream)

    asked(ask)


def test_a_stream_that_nobody_reads_asks_nothing() -> None:
    engine = FakeEngine()
    asked(lambda client: client.stream("?"), engine)
    assert engine.generated == 0
