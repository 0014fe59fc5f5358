import asyncio

import pytest

from bench.studies.peers.drive import Work, WrongAnswer, drive
from bench.studies.peers.stub import stub

CHAT = {"model": "stub", "messages": [{"role": "user", "content": "?"}]}


def timed(work: Work, clients: int = 3) -> int:
    async def main() -> int:
        async with stub() as origin:
            seen = await drive(f"{origin}/v1/chat/completions", work, clients, seconds=0.05, warm_up_s=0.01)
            assert seen.rate > 0
            assert seen.p50_ms <= seen.p99_ms
            return len(seen.latencies)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "expect"),
    [({}, b"boxed{4}"), ({"n": 8}, b'"index":7'), ({"stream": True, "n": 2}, b"data: [DONE]")],
)
def test_requests_are_answered_one_after_the_other(fields: dict[str, object], expect: bytes) -> None:
    assert timed(Work({**CHAT, **fields}, expect)) >= 3


def test_a_wrong_answer_ends_the_measurement() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        timed(Work(CHAT, b"boxed{5}"))
    assert caught.group_contains(WrongAnswer, match="boxed")


def test_a_server_that_closes_each_connection_is_asked_on_a_new_one() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nyes")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
            seen = await drive(url, Work({}, b"yes"), clients=2, seconds=0.05, warm_up_s=0)
            assert len(seen.latencies) >= 4

    asyncio.run(main())


def test_a_pace_is_kept_and_waiting_for_a_client_counts() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nyes")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
            seen = await drive(url, Work({}, b"yes"), clients=1, seconds=0.2, warm_up_s=0, per_second=100)
            assert 18 <= len(seen.latencies) <= 20
            # One client cannot keep this pace: the last ones were due long before.
            assert max(seen.latencies) > 0.1

    asyncio.run(main())
