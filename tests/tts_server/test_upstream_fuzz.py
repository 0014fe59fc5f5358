"""Whatever an upstream sends, reading it ends in what was asked for or in an error that is declared."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patience import NEVER_S
from serving import ask, serving, until
from upstream import StandIn

from prm import FakePRM, PRMError
from prm.families.contract import Layout, Sigmoid
from strategies.core.contracts import Chunk, Prompt, Sampling, TokenLogprob
from tts_server.engines.openai.wire import Abilities, Samples
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.errors import APIError, UpstreamError
from tts_server.prm_serving.remote import RemoteReader
from tts_server.upstream import body as upstream_body
from tts_server.upstream import connection as lane
from tts_server.upstream.client import Upstream
from tts_server.upstream.errors import refusal

HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
KEYS = ("choices", "index", "text", "delta", "content", "token_ids", "logprobs", "usage", "error", "message", "code")
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=8,
)
DEEP = b"[" * 1000 + b"]" * 1000
"""As much as the parser takes, and more than Python prints."""


class Sayer:
    """Answers every request with the same bytes, cut where it is told, and closes."""

    def __init__(self) -> None:
        self.bytes = b""
        self.cut = 1000
        self.taken = 0
        """Bytes that a caller has let it send."""
        self.live = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.live += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(self.bytes), self.cut):
                writer.write(self.bytes[at : at + self.cut])
                await writer.drain()
                self.taken = at + self.cut
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.live -= 1


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@asynccontextmanager
async def asked(sayer: Sayer) -> AsyncIterator[Upstream]:
    async with await asyncio.start_server(sayer, "127.0.0.1", 0) as server:
        http = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", retries=0, read_timeout_s=NEVER_S)
        try:
            yield http
        finally:
            await http.close()
            await until(lambda: not sayer.live)


async def heard(sayer: Sayer) -> list[Any]:
    """The frames of a stream, then the JSON of a plain answer; an error in place of what is none."""
    found: list[Any] = []
    async with asked(sayer) as http:
        try:
            async for frame in http.events("/x", {}):
                found.append(frame)
        except APIError as error:
            found.append(error)
        try:
            found.append(await http.get("/x"))
        except APIError as error:
            found.append(error)
    return found


def sse(frames: Sequence[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(frame).encode() for frame in frames)


def as_chunks(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


bodies = (
    st.binary(max_size=200)
    | st.lists(values, max_size=4).map(sse)
    | st.lists(st.sampled_from([b"data:", b"data: [DONE]", b"\n", b"\r\n", b": ", b"{}", b'{"error":', b"\xff"])).map(
        b"".join
    )
)
heads = st.sampled_from([HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]) | st.builds(
    lambda status, wait: b"HTTP/1.1 %d X\r\nRetry-After: %b\r\n\r\n" % (status, wait.encode("latin-1")),
    st.integers(100, 599),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
    | st.sampled_from(["inf", "nan", "1e999", "9" * 400, "Mon, 1 Jan 99999999999 00:00:00 GMT", "-1", "0"]),
)


@given(head=heads, body=bodies, cut=st.integers(1, 300), size=st.integers(1, 40), shorn=st.integers(0, 30))
@example(head=b"\x16\x03\x01", body=b"", cut=1, size=1, shorn=0)
@example(head=b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", body=b"x", cut=9, size=1, shorn=0)
@example(head=b"HTTP/1.1 503 X\r\nRetry-After: inf\r\n\r\n", body=b"", cut=99, size=1, shorn=0)
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
def test_any_bytes_are_frames_and_json_or_a_declared_error(
    runner: asyncio.Runner, head: bytes, body: bytes, cut: int, size: int, shorn: int
) -> None:
    sayer = Sayer()
    said = head + (as_chunks(body, size) if b"chunked" in head else body)
    sayer.bytes, sayer.cut = said[: len(said) - shorn], cut
    for found in runner.run(asyncio.wait_for(heard(sayer), NEVER_S)):
        assert not isinstance(found, APIError) or (found.status != 500 and json.dumps(found.body))


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2**24,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2**21,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2**19,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 2**21,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;" + b"x" * 2**24,
        HEAD + b"x" * 2**24,
        HEAD + b"data: " + b"x" * 2**24,
    ],
    ids=["header", "headers", "provisional", "trailers", "extension", "body", "line"],
)
def test_what_never_ends_is_given_up(runner: asyncio.Runner, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_body, "MAX_LINE", 2**18)
    monkeypatch.setattr(lane, "_FULL", 2**16)
    sayer = Sayer()
    sayer.bytes, sayer.cut = said, 2**16
    for found in runner.run(heard(sayer)):
        assert isinstance(found, APIError)
    # What the two kernels hold between them comes on top.
    assert sayer.taken < 12 * 2**20 < len(said)


def test_an_answer_to_nothing_is_none_of_the_next_one(runner: asyncio.Runner) -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    sayer = Sayer()
    sayer.bytes = whole + b'{"a":1}' + whole + b'{"b":2}'

    async def main() -> list[Any]:
        async with asked(sayer) as http:
            return [await http.get("/x") for _ in range(2)]

    assert runner.run(main()) == [{"a": 1}, {"a": 1}]


def test_a_line_in_single_bytes_is_put_together_once(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    class Piece(bytes):
        joined = 0

        def __add__(self, other: bytes) -> bytes:
            Piece.joined += 1
            return bytes(self) + other

    async def pieces() -> AsyncIterator[bytes]:
        for byte in b'data: {"a": "' + b"x" * 5000 + b'"}\n\n':
            yield Piece(bytes([byte]))

    async def main() -> list[bytes]:
        return [data async for data, _ in upstream_body.events(pieces())]

    assert len(runner.run(main())[0]) == 5009
    assert Piece.joined == 0


FRAME: dict[str, Any] = {
    "choices": [
        {
            "index": 0,
            "text": "a",
            "token_ids": [97],
            "finish_reason": None,
            "stop_reason": None,
            "logprobs": {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.5}]},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
}
CHAT_FRAME: dict[str, Any] = {
    "choices": [
        {
            "index": 0,
            "delta": {
                "role": "assistant",
                "reasoning": "r",
                "content": "a",
                "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}]}]},
            "finish_reason": None,
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*at, key))


def with_value(frame: dict[str, Any], place: Sequence[Any], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(frame)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def spoiled(frame: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The frame with something else in one place."""
    return st.builds(lambda place, value: with_value(frame, place, value), st.sampled_from(list(places(frame))), values)


frames = spoiled(FRAME) | spoiled(CHAT_FRAME) | st.dictionaries(st.sampled_from(KEYS), values)
ABILITIES = [
    Abilities(continues=True, usage=True, logprobs=True),
    Abilities(usage=True, continuous_usage=True, logprobs=True),
]


def well_formed(chunk: Chunk) -> bool:
    def fine(logprob: TokenLogprob) -> bool:
        return type(logprob.token) is str and type(logprob.logprob) is float and all(map(fine, logprob.top))

    counts = (*chunk.token_ids, chunk.prompt_tokens, chunk.cached_tokens)
    return (
        type(chunk.text) is str
        and all(type(count) is int and count >= 0 for count in counts)
        and type(chunk.completion_tokens) is int
        and (chunk.stop is None or type(chunk.stop) is str)
        and all(map(fine, (*chunk.logprobs, *chunk.prompt_logprobs)))
    )


@given(st.lists(frames, max_size=4), st.sampled_from(ABILITIES), st.sampled_from([None, 2]))
@example([with_value(FRAME, ("choices", 0, "text"), ["a"])], ABILITIES[0], None)
@example([with_value(FRAME, ("usage", "completion_tokens"), 1.5)], ABILITIES[0], None)
@example([with_value(FRAME, ("choices", 0, "token_ids"), "abc")], ABILITIES[0], None)
@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
def test_any_frames_are_well_formed_chunks_or_an_upstream_error(
    said: list[dict[str, Any]], abilities: Abilities, k: int | None
) -> None:
    samples = Samples(abilities, 1, 0, 3, Sampling(logprobs=k))
    ending = {"choices": [{"index": 0, "text": "", "token_ids": [], "delta": {}, "finish_reason": "stop"}]}
    read: list[Chunk] = []
    try:
        for frame in [*said, ending]:
            read += samples.read(frame)
        samples.check_ended()
        read += filter(None, [samples.last()])
    except UpstreamError:
        pass
    assert all(map(well_formed, read))


def test_what_is_nested_too_deep_to_be_told_is_an_upstream_error() -> None:
    deep = with_value(CHAT_FRAME, ("choices", 0, "delta", "tool_calls", 0, "function", "name"), orjson.loads(DEEP))
    with pytest.raises(UpstreamError):
        list(Samples(ABILITIES[1], 1, 0, 3, Sampling()).read(deep))
    assert "nested too deep" in refusal(500, {}, b'{"message": %b}' % DEEP, None).message


@given(value=values)
@example(value={"tokens": [1, "a"], "max_model_len": 10})
@example(value={"data": [{"id": 5, "max_model_len": 10}]})
@example(value={"choices": [{"index": []}]})
@example(value={"choices": [{"index": 0, "logprobs": [1], "token_ids": 5}]})
@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
def test_any_answers_at_the_start_are_told_in_a_sentence(runner: asyncio.Runner, value: Any) -> None:
    async def main(serves: bytes) -> None:
        sayer = Sayer()
        sayer.bytes = HEAD + serves
        async with await asyncio.start_server(sayer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            engine = OpenAIEngine(url, start_timeout_s=NEVER_S, retries=0)
            with suppress(UpstreamError):
                await engine.start()
            await engine.close()
            await until(lambda: not sayer.live)

    runner.run(main(json.dumps(value).encode()))
    listed = {"data": [{"id": "m"}]} | (value if isinstance(value, dict) else {})
    runner.run(main(json.dumps(listed).encode()))
    runner.run(main(sse([listed, value])))


@given(value=values)
@example(value={"tokens": [1, "a"]})
@example(value={"tokens": [1, 2**63]})
@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
def test_any_token_ids_are_ids_or_an_upstream_error(runner: asyncio.Runner, value: Any) -> None:
    async def main() -> None:
        stand_in = StandIn()
        async with stand_in.serve() as url:
            engine = OpenAIEngine(url, retries=0)
            await engine.start()
            answer = value if isinstance(value, dict) else {"tokens": value}

            async def post(path: str, body: Any) -> Any:
                return json.loads(json.dumps(answer))

            engine._http.post = post  # type: ignore[method-assign]
            try:
                ids = await engine.encode(Prompt(({"role": "user", "content": "x"},)))
            except UpstreamError:
                return
            finally:
                await engine.close()
            assert all(type(token) is int and 0 <= token < 2**53 for token in ids)

    runner.run(main())


@given(value=values)
@example(value={"data": [{"index": 0, "data": [["a"], [1], [None]]}]})
@example(value={"data": [5]})
@example(value={"data": [{"index": 0, "data": [[1.0]] * 3}], "usage": {"total_tokens": "x"}})
@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
def test_any_scores_are_scores_or_a_declared_error(runner: asyncio.Runner, value: Any) -> None:
    async def main() -> None:
        sayer = Sayer()
        async with asked(sayer) as http:
            reader = RemoteReader(http, "m", Sigmoid())
            reader._shape = "all"
            sayer.bytes = HEAD + json.dumps(value).encode()
            try:
                ((first,),) = await reader.read([Layout((1, 2, 3), (2,))])
            except (PRMError, APIError):
                return
            assert 0 <= first <= 1

    runner.run(main())


@given(
    frame=spoiled(FRAME), strategy=st.sampled_from(["single", "best_of_n", "self_consistency"]), stream=st.booleans()
)
@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
def test_no_frame_is_a_fault_of_ours(frame: dict[str, Any], strategy: str, stream: bool) -> None:
    async def main() -> None:
        stand_in = StandIn()
        async with stand_in.serve() as url:
            engine = OpenAIEngine(url, retries=0)
            await engine.start()

            async def events(path: str, body: Any) -> AsyncIterator[Any]:
                yield frame
                for index in range(body.get("n", 1)):
                    yield {"choices": [{"index": index, "text": "b", "token_ids": [98], "finish_reason": "stop"}]}

            engine._http.events = events  # type: ignore[method-assign,assignment]
            async with serving(engine, [FakePRM()]) as client:
                options = {} if strategy == "single" else {"n": 2}
                answer = await ask(client, model="stand-in", tts={"strategy": strategy, **options}, stream=stream)
                assert answer.status_code in (200, 502), answer.text
                assert '"internal_error"' not in answer.text
            await engine.close()

    run(main)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())
