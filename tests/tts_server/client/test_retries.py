"""What is sent again, when, and how often."""

import asyncio
import time
from email.utils import formatdate

import httpx
import pytest
from patience import NEVER_S
from scripted import DONE, NOTHING, WHOLE, Reply, chunk, scripted
from serving import until

from tts_server.client import (
    APIError,
    AsyncClient,
    Client,
    ConnectionFailed,
    RateLimited,
    ServerError,
    TimedOut,
    Unavailable,
)
from tts_server.client.calls import chat, http_options
from tts_server.client.retries import CAP_S, FIRST_S, LONGEST_S, Attempts, retry_after_s

SOON = {"retry-after-ms": "1"}
MODELS = Reply(body={"object": "list", "data": [{"id": "fake"}]})


def failing(status: int = 429, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json={"error": {"message": "no"}})


def test_a_request_that_the_server_invites_to_repeat_is_repeated_until_it_is_answered() -> None:
    async def main() -> None:
        for status in (408, 429, 500, 502, 503):
            refusals = [Reply(status, {"error": {"message": "later"}}, SOON)] * 2
            async with scripted(*refusals) as server, AsyncClient(server.url, model="fake") as client:
                assert (await client.chat("?")).text == "Four."
                assert len(server.requests) == 3
                assert server.requests[0][:2] == server.requests[2][:2]
            async with scripted(*refusals) as server:
                with Client(server.url, model="fake") as sync:
                    assert (await asyncio.to_thread(sync.chat, "?")).text == "Four."
                assert len(server.requests) == 3

    asyncio.run(main())


def test_a_stream_that_is_refused_is_repeated_too() -> None:
    async def main() -> None:
        frames = [chunk({"content": "Four."}), DONE]
        replies = [Reply(503, {"error": {"message": "later"}}, SOON), Reply(frames=frames)]
        async with scripted(*replies) as server, AsyncClient(server.url, model="fake") as client:
            assert (await client.stream("?").result()).text == "Four."
            assert len(server.requests) == 2

    asyncio.run(main())


def test_repeating_is_bounded_and_the_last_error_is_told() -> None:
    async def main() -> None:
        for retries, calls in ((2, 3), (0, 1)):
            refusals = [Reply(429, {"error": {"message": f"no {i}"}}, SOON) for i in range(9)]
            async with scripted(*refusals) as server, AsyncClient(server.url, max_retries=retries) as client:
                with pytest.raises(RateLimited, match=f"no {calls - 1}") as caught:
                    await client.chat("?", model="fake")
                assert (caught.value.status, caught.value.retry_after_s) == (429, 0.001)
                assert len(server.requests) == calls

    asyncio.run(main())


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(503, {"error": {"message": "dead"}}, {"x-should-retry": "false"}), Unavailable),
        (Reply(500, {"error": {"message": "spent"}}, {"x-should-retry": "false", **SOON}), ServerError),
        (Reply(504, {"error": {"message": "late"}}), ServerError),
        (Reply(400, {"error": {"message": "bad"}}), APIError),
        (Reply(429, {"error": {"message": "tomorrow"}}, {"retry-after": str(LONGEST_S + 1)}), RateLimited),
    ],
)
def test_what_is_not_invited_is_not_repeated(reply: Reply, error: type[APIError]) -> None:
    async def main() -> None:
        async with scripted(reply) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(error):
                await client.chat("?")
            assert len(server.requests) == 1

    asyncio.run(main())


def test_an_invitation_overrides_the_status() -> None:
    async def main() -> None:
        reply = Reply(504, {"error": {"message": "late"}}, {"x-should-retry": "true", **SOON})
        async with scripted(reply) as server, AsyncClient(server.url, model="fake") as client:
            assert (await client.chat("?")).text == "Four."

    asyncio.run(main())


def test_a_search_that_may_have_begun_is_not_repeated_but_a_list_is() -> None:
    async def main() -> None:
        async with scripted(NOTHING) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(ConnectionFailed, match="disconnected"):
                await client.chat("?")
            assert len(server.requests) == 1
        async with scripted(NOTHING, MODELS) as server, AsyncClient(server.url) as client:
            assert [model.id for model in await client.models()] == ["fake"]
            assert len(server.requests) == 2

    asyncio.run(main())


def test_an_answer_that_is_cut_is_an_error() -> None:
    async def main() -> None:
        async with scripted(Reply(body=WHOLE, cut=True)) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(ConnectionFailed, match=server.url):
                await client.chat("?")
            assert len(server.requests) == 1

    asyncio.run(main())


def test_a_search_that_takes_too_long_is_left_and_not_repeated() -> None:
    async def main() -> None:
        async with scripted(Reply(hang=True)) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(TimedOut, match="in time"):
                await client.chat("?", timeout=httpx.Timeout(NEVER_S, read=0.5))
            assert len(server.requests) == 1
            await until(lambda: server.left == 1)

    asyncio.run(main())


def test_the_time_to_connect_is_bounded_apart() -> None:
    for given, read, connect in ((600.0, 600, 5), (2.0, 2, 2), (httpx.Timeout(None), None, None)):
        timeout = http_options("http://127.0.0.1:9", None, given, None)["timeout"]
        assert (timeout.read, timeout.connect) == (read, connect)
        with httpx.Client(timeout=NEVER_S) as http:
            sent = chat("?", "fake", None, given, {}).request(http).extensions["timeout"]
        assert (sent["read"], sent["connect"]) == (read, connect)


def test_a_server_that_is_not_there_is_tried_again() -> None:
    attempts = Attempts(2)
    request = httpx.Request("POST", "http://127.0.0.1:9/v1/chat/completions")
    error = httpx.ConnectError("refused", request=request)
    assert attempts.after_failure(error) <= FIRST_S
    assert FIRST_S < attempts.after_failure(error) <= 2 * FIRST_S
    with pytest.raises(ConnectionFailed, match="refused"):
        attempts.after_failure(error)


def test_nobody_listens() -> None:
    with (
        Client("http://127.0.0.1:9", max_retries=0) as client,
        pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9"),
    ):
        client.chat("?", model="fake")


def test_pauses_double_up_to_a_cap_and_differ_between_clients() -> None:
    def pauses() -> list[float]:
        attempts = Attempts(8)
        return [attempts.after_status(failing()) for _ in range(8)]

    for i, pause in enumerate(pauses()):
        longest = min(FIRST_S * 2**i, CAP_S)
        assert 0.75 * longest <= pause <= longest
    assert pauses() != pauses()


def test_the_server_s_own_time_is_kept() -> None:
    assert Attempts(1).after_status(failing(retry_after="7")) == 7
    assert Attempts(1).after_status(failing(retry_after_ms="1500", retry_after="9")) == 1.5
    assert Attempts(1).after_status(failing(retry_after="0")) >= 0.75 * FIRST_S


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s({"retry-after": "1.5"}) == 1.5
    assert retry_after_s({"retry-after": "-3"}) == 0
    in_a_minute = retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 50 < in_a_minute <= 60
    assert retry_after_s({"retry-after": formatdate(0, usegmt=True)}) == 0
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({}) is None
