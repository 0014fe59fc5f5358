"""Streams that break, and what is left of them."""

import asyncio
import json
from typing import Any

import pytest
from scripted import DONE, WHOLE, Reply, chunk, scripted
from serving import until

from tts_server.client import (
    AsyncClient,
    Client,
    Delta,
    Final,
    Progress,
    RateLimited,
    ServerError,
    StreamCut,
    TimedOut,
    TTSError,
    Unavailable,
    UnexpectedAnswer,
)

BEGUN = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Fo"})]
WHOLE_STREAM = [*BEGUN, chunk({"content": "ur."}), chunk({}, finish_reason="stop"), DONE]


def failure(code: str | None, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": "The engine died.", "type": "server_error", "param": None, "code": code, **fields}}


async def broken(*frames: Any, timeout: float = 30, **reply: Any) -> TTSError:
    """What a stream of these frames raises, to both clients alike; nothing is asked twice."""
    answer = Reply(frames=frames, **reply)
    async with scripted(answer, answer) as server:
        async with AsyncClient(server.url, model="fake") as client:
            with pytest.raises(TTSError) as caught:
                await client.stream("?", timeout=timeout).result()

        def ask() -> None:
            with Client(server.url, model="fake") as sync, sync.stream("?", timeout=timeout) as stream:
                with pytest.raises(type(caught.value)) as again:
                    list(stream)
                assert str(again.value) == str(caught.value)
                with pytest.raises(RuntimeError, match="not been read to its end"):
                    stream.result()

        await asyncio.to_thread(ask)
        assert len(server.requests) == 2
    return caught.value


def partial_text(error: TTSError) -> str | None:
    return error.partial.text if error.partial else None


def test_a_whole_stream_is_a_whole_answer() -> None:
    async def main() -> None:
        usage = chunk({}, usage=WHOLE["usage"], choices=[])
        frames = [": beat\n\n", *WHOLE_STREAM[:-1], usage, DONE]
        async with scripted(Reply(frames=frames)) as server, AsyncClient(server.url, model="fake") as client:
            events = [event async for event in client.stream("?")]
        assert events[:-1] == [Delta("Fo"), Delta("ur.")]
        assert isinstance(events[-1], Final)
        result = events[-1].result
        assert (result.text, result.choices[0].finish_reason, result.request_id) == ("Four.", "stop", "request-7")
        assert result.usage
        assert result.usage.total_tokens == 3
        assert result.raw["object"] == "chat.completion"

    asyncio.run(main())


def test_an_error_in_mid_stream_is_typed_and_keeps_what_had_come() -> None:
    async def main() -> None:
        died = await broken(*BEGUN, failure("engine_unavailable"), DONE)
        assert isinstance(died, Unavailable)
        assert (str(died), died.status, died.code, died.type) == (
            "The engine died.",
            None,
            "engine_unavailable",
            "server_error",
        )
        assert (died.request_id, partial_text(died)) == ("request-7", "Fo")
        assert type(await broken(*BEGUN, failure(None))) is ServerError
        assert type(await broken(*BEGUN, failure(None, type="rate_limit_error"))) is RateLimited
        assert (await broken(failure("internal_error"))).partial is None

    asyncio.run(main())


def test_a_stream_that_stops_before_its_end_is_no_success() -> None:
    async def main() -> None:
        for reply in ({}, {"cut": True}):
            for frames in (BEGUN, WHOLE_STREAM[:-1], [*BEGUN, 'data: {"id"']):
                error = await broken(*frames, **reply)
                assert type(error) is StreamCut
                assert (partial_text(error) or "").startswith("Fo")
        assert (await broken()).partial is None

    asyncio.run(main())


def test_a_connection_that_breaks_after_the_end_breaks_nothing() -> None:
    async def main() -> None:
        async with (
            scripted(Reply(frames=WHOLE_STREAM, cut=True)) as server,
            AsyncClient(server.url, model="fake") as client,
        ):
            assert (await client.stream("?").result()).text == "Four."

    asyncio.run(main())


def test_what_comes_after_the_end_is_not_read() -> None:
    async def main() -> None:
        frames = [*WHOLE_STREAM, "data: no JSON\n\n", chunk({"content": "!"}), DONE]
        async with scripted(Reply(frames=frames)) as server, AsyncClient(server.url, model="fake") as client:
            events = [event async for event in client.stream("?")]
            assert [type(event) for event in events] == [Delta, Delta, Final]

    asyncio.run(main())


def test_a_stream_that_breaks_is_closed_while_its_error_lives() -> None:
    async def main() -> None:
        replies = [Reply(frames=["data: no JSON\n\n"], hang=True)] * 2
        replies += [Reply(frames=[], hang=True, headers={"content-type": "text/html"})] * 2
        async with scripted(*replies) as server:
            kept = []

            def ask(client: Client) -> None:
                with pytest.raises(UnexpectedAnswer) as caught:
                    list(client.stream("?"))
                kept.append(caught)

            async def left(count: int) -> None:
                await until(lambda: server.left == count)

            async with AsyncClient(server.url, model="fake") as client:
                with Client(server.url, model="fake") as sync:
                    for count in (1, 3):
                        with pytest.raises(UnexpectedAnswer) as caught:
                            await client.stream("?").result()
                        kept.append(caught)
                        await left(count)
                        await asyncio.to_thread(ask, sync)
                        await left(count + 1)

    asyncio.run(main())


def test_a_silent_stream_times_out_with_what_had_come() -> None:
    async def main() -> None:
        error = await broken(*BEGUN, hang=True, timeout=1)
        assert type(error) is TimedOut
        assert partial_text(error) == "Fo"

    asyncio.run(main())


@pytest.mark.parametrize(
    "frame",
    [
        "no JSON",
        "[]",
        '"text"',
        '{"choices": [{}]}',
        '{"choices": [{"index": 0, "delta": 1}]}',
        '{"choices": [{"index": 0, "delta": {"content": 1}}]}',
        '{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 3}]}}]}',
    ],
)
def test_a_stream_in_another_format_is_refused(frame: str) -> None:
    async def main() -> None:
        error = await broken(*BEGUN, f"data: {frame}\n\n")
        assert type(error) is UnexpectedAnswer
        assert "OpenAI's format" in str(error)

    asyncio.run(main())


def test_what_never_was_an_answer_is_not_kept() -> None:
    async def main() -> None:
        error = await broken({"choices": [{"index": 0, "delta": {"content": "Fo"}}]})
        assert type(error) is StreamCut
        assert error.partial is None

    asyncio.run(main())


def test_an_end_without_an_answer_is_refused() -> None:
    async def main() -> None:
        assert "no ChatResult: id" in str(await broken(DONE))

    asyncio.run(main())


def test_an_answer_that_is_no_stream_is_refused() -> None:
    async def main() -> None:
        async with scripted(Reply(body=WHOLE)) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(UnexpectedAnswer, match="application/json"):
                await client.stream("?").result()

    asyncio.run(main())


def test_choices_tool_calls_and_thoughts_are_put_together() -> None:
    def piece(arguments: str, **fields: Any) -> dict[str, Any]:
        return {
            "tool_calls": [{"index": 0, "function": {"arguments": arguments, **fields.pop("function", {})}, **fields}]
        }

    frames = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "Hm. ", "reasoning_content": "Hm. "}),
        chunk({"content": "b"}, index=1),
        chunk({"reasoning_content": "Ah."}),
        chunk(piece("", id="call-1", type="function", function={"name": "add"})),
        chunk(piece('{"a"')),
        chunk(piece(": 2}")),
        chunk({}, index=1, finish_reason="length"),
        chunk({}, finish_reason="tool_calls"),
        DONE,
    ]

    async def main() -> None:
        async with scripted(Reply(frames=frames)) as server, AsyncClient(server.url, model="fake") as client:
            events = [event async for event in client.stream("?", n=2)]
        assert events[:-1] == [Progress("Hm. "), Delta("b", 1), Progress("Ah.")]
        assert isinstance(events[-1], Final)
        first, second = events[-1].result.choices
        assert (first.message.reasoning, first.finish_reason, second.message.content) == ("Hm. Ah.", "tool_calls", "b")
        assert first.message.tool_calls
        assert first.message.tool_calls[0].id == "call-1"
        assert first.message.tool_calls[0].function.name == "add"
        assert json.loads(first.message.tool_calls[0].function.arguments) == {"a": 2}

    asyncio.run(main())
