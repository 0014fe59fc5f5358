"""The client against a server: what is sent, what comes back, and what ends when the client leaves."""

import asyncio
import doctest
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import openai
import pytest
from scripted import Reply, scripted
from serving import serving, until

import tts_server.client
from prm.fake import FakePRM
from tts_server.client import (
    TTS,
    APIError,
    AsyncClient,
    AuthenticationFailed,
    BadRequest,
    BestOfN,
    Budget,
    ChatResult,
    Client,
    ConnectionFailed,
    ContextTooLong,
    Delta,
    Final,
    NotFound,
    Progress,
    RequestTooLarge,
    ServerError,
    TimedOut,
    Trace,
    Unavailable,
    UnexpectedAnswer,
    UnsupportedParameter,
)
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest

Ask = Callable[[Client], Any]


def served(work: Callable[[str], Any], engine: FakeEngine | None = None, settings: Settings | None = None) -> Any:
    """What code without `await` makes of a server's URL."""

    async def main() -> Any:
        async with serving(engine, [FakePRM()], settings) as http:
            return await asyncio.to_thread(work, str(http.base_url))

    return asyncio.run(main())


def asked(ask: Ask, engine: FakeEngine | None = None, **options: Any) -> Any:
    """What a client's user gets."""

    def work(url: str) -> Any:
        with Client(url, model="fake", **options) as client:
            return ask(client)

    return served(work, engine)


def sent(ask: Ask) -> dict[str, Any]:
    """The body that a call sends."""

    async def main() -> Any:
        async with scripted() as server:

            def work() -> None:
                with Client(server.url, model="fake") as client:
                    ask(client)

            await asyncio.to_thread(work)
            return server.requests[0][1]

    body: dict[str, Any] = asyncio.run(main())
    return body


def test_both_clients_give_the_same_typed_answer() -> None:
    def sync(url: str) -> ChatResult:
        with Client(f"{url}/v1", model="fake") as client:
            return client.chat("What is 2 + 2?", tts=BestOfN(n=3, return_candidates=True), seed=1)

    async def main() -> None:
        async with serving(prms=[FakePRM()]) as http:
            url = str(http.base_url)
            async with AsyncClient(url, model="fake") as client:
                result = await client.chat(
                    [{"role": "user", "content": "What is 2 + 2?"}],
                    tts={"strategy": "best_of_n", "n": 3, "return_candidates": True},
                    seed=1,
                )
            same = await asyncio.to_thread(sync, url)
        assert (same.text, same.usage) == (result.text, result.usage)
        assert result.text.startswith("You said: What is 2 + 2?")
        assert result.choices[0].finish_reason == "stop"
        assert result.usage
        assert result.usage.completion_tokens_details
        assert 0 < result.usage.completion_tokens_details.reasoning_tokens < result.usage.completion_tokens
        assert result.tts
        assert (result.tts.strategy, result.tts.selector, result.tts.samples) == ("best_of_n", "best", 3)
        assert len(result.tts.candidates) == 3
        assert all(0 <= (candidate.score or -1) <= 1 for candidate in result.tts.candidates)
        assert result.tts.usage.prm_calls > 0
        assert result.request_id
        assert result.raw["tts"]["trace_id"] == result.tts.trace_id

    asyncio.run(main())


def test_a_stream_adds_up_to_the_whole_answer() -> None:
    fields: dict[str, Any] = {"tts": "self_consistency", "seed": 3, "n": 2, "logprobs": True, "top_logprobs": 1}

    def ask(client: Client) -> None:
        whole = client.chat("What is 2 + 2?", **fields)
        with client.stream("What is 2 + 2?", **fields) as stream:
            events = list(stream)
        assert isinstance(events[0], Progress)
        assert isinstance(events[-1], Final)
        result = stream.result()
        assert result is events[-1].result
        for choice, other in zip(result.choices, whole.choices, strict=True):
            said = "".join(e.text for e in events if isinstance(e, Delta) and e.index == choice.index)
            assert said == choice.message.content == other.message.content
            assert (choice.finish_reason, choice.logprobs) == (other.finish_reason, other.logprobs)
            assert choice.logprobs
            assert choice.logprobs.content
        assert result.usage == whole.usage
        assert result.tts
        assert whole.tts
        assert result.tts.votes == whole.tts.votes

    asked(ask)


def test_one_sample_streams_from_its_first_token() -> None:
    events = asked(lambda client: list(client.stream("Hi.")))
    assert isinstance(events[0], Delta)
    assert len(events) > 10


@pytest.mark.parametrize(
    ("tts", "wire"),
    [
        ("dvts", {"strategy": "dvts"}),
        (TTS("dvts", n=4, budget=Budget(max_tokens=9)), {"strategy": "dvts", "n": 4, "budget": {"max_tokens": 9}}),
        (TTS(return_candidates=True), {"return_candidates": True}),
        (
            BestOfN(n=2, prm="judge", budget=Budget(deadline_s=1.5)),
            {"strategy": "best_of_n", "n": 2, "prm": "judge", "budget": {"deadline_s": 1.5}},
        ),
        ({"strategy": "mcts", "value": None}, {"strategy": "mcts", "value": None}),
    ],
)
def test_options_are_sent_as_they_are_written(tts: Any, wire: dict[str, Any]) -> None:
    assert sent(lambda client: client.chat("?", tts=tts))["tts"] == wire


def test_fields_are_sent_and_nothing_beside_them() -> None:
    turns = [{"role": "user", "content": "?"}]
    assert sent(lambda client: client.chat("?")) == {"model": "fake", "messages": turns}
    body = sent(lambda client: client.chat(turns, model="other", stop=["a"], extra_body={"new": [1], "top_k": 3}))
    assert body == {"model": "other", "messages": turns, "stop": ["a"], "new": [1], "top_k": 3}


def test_the_key_and_the_headers_are_sent() -> None:
    async def main() -> None:
        async with (
            scripted() as server,
            AsyncClient(server.url, "secret", model="fake", headers={"x-team": "maths"}) as client,
        ):
            await client.chat("?")
            _, _, headers = server.requests[0]
            assert (headers["authorization"], headers["x-team"]) == ("Bearer secret", "maths")

    asyncio.run(main())


def test_text_of_any_script_survives() -> None:
    question = "Ünïcödé 数学 \U0001d54f 👩‍🔬 \u2028 \x00 end"

    def ask(client: Client) -> None:
        assert question in client.chat(question).text
        with client.stream(question) as stream:
            assert question in stream.result().text

    asked(ask, FakeEngine(lambda request: str(request.messages[-1]["content"])))


def test_threads_share_a_client() -> None:
    def ask(client: Client) -> None:
        with ThreadPoolExecutor(8) as threads:
            questions = [f"This is question {i}." for i in range(32)]
            results = list(threads.map(lambda question: client.chat(question, tts="self_consistency"), questions))
        assert all(question in result.text for question, result in zip(questions, results, strict=True))

    asked(ask)


def test_scores() -> None:
    def ask(client: Client) -> None:
        one = client.score("What is 2 + 2?", steps=["2 + 2 = 4", "So 4."], aggregation="min")
        assert one.score == min(one.scores)
        assert (len(one.scores), one.aggregation, one.model) == (2, "min", "fake")
        assert one.usage
        assert one.usage.prm_calls == 1
        turns = [{"role": "user", "content": "What is 2 + 2?"}]
        split = client.score(messages=turns, solution="2 + 2 = 4\n\nSo 4.", aggregation="min")
        assert split.scores == one.scores
        many = client.score_many([{"question": "Q", "steps": ["a"]}, {"question": "Q", "steps": ["b", "c"]}])
        assert [len(score.scores) for score in many.data] == [1, 2]
        assert many.usage.prm_calls == 1
        with pytest.raises(BadRequest, match="steps or solution") as caught:
            client.score("What is 2 + 2?")
        assert caught.value.param == "steps"

    asked(ask)


def test_lists_and_health() -> None:
    engine = FakeEngine()

    def ask(client: Client) -> None:
        assert {"fake", "fake@best_of_n"} <= {model.id for model in client.models()}
        found = {strategy.id: strategy for strategy in client.strategies()}
        assert found["best_of_n"].uses_prm
        assert "selector" in found["best_of_n"].options["properties"]
        assert client.health()
        engine.healthy = False
        assert not client.health()

    asked(ask, engine)


def test_a_trace_that_is_not_there() -> None:
    def ask(client: Client) -> None:
        with pytest.raises(NotFound):
            client.trace("trace-none")
        with pytest.raises(ValueError, match="id is empty"):
            client.trace("")

    asked(ask)


def test_a_trace_is_asked_for_by_its_id_whatever_is_in_it() -> None:
    async def main() -> None:
        record = {"trace_id": "a/b", "events": [{"kind": "expand"}]}
        async with scripted(Reply(body=record)) as server, AsyncClient(server.url) as client:
            trace = await client.trace("a/../b?c")
            assert isinstance(trace, Trace)
            assert trace.raw == record
            assert server.requests[0][0] == "/v1/traces/a%2F..%2Fb%3Fc"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "error", "status", "code", "param"),
    [
        ({"tts": {"strategy": "nope"}}, BadRequest, 400, "invalid_value", "tts.strategy"),
        ({"tts": BestOfN(n=0)}, BadRequest, 400, "invalid_value", "tts.n"),
        ({"temperature": 3}, BadRequest, 400, "invalid_value", "temperature"),
        ({"extra_body": {"audio": {}}}, UnsupportedParameter, 400, "unsupported_parameter", "audio"),
        ({"messages": "x " * 40_000}, ContextTooLong, 400, "context_length_exceeded", "messages"),
        ({"model": "gpt-9"}, NotFound, 404, "model_not_found", "model"),
    ],
)
def test_errors_are_typed(fields: dict[str, Any], error: type[APIError], status: int, code: str, param: str) -> None:
    def ask(client: Client) -> None:
        for call in (client.chat, lambda *a, **k: client.stream(*a, **k).result()):
            with pytest.raises(error) as caught:
                call(**{"messages": "?", **fields})
            raised = caught.value
            assert type(raised) is error
            assert (raised.status, raised.code, raised.param) == (status, code, param)
            assert raised.type == "invalid_request_error"
            assert raised.request_id
            assert str(raised) == raised.message != ""

    asked(ask)


def test_keys_and_sizes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")

    def work(url: str) -> None:
        with Client(url, "right", model="fake") as client:
            assert client.chat("?").text
            with pytest.raises(RequestTooLarge):
                client.chat("x" * 5000)
        for key in (None, "wrong"):
            with Client(url, key, model="fake") as client:
                assert client.health()
                with pytest.raises(AuthenticationFailed) as caught:
                    client.chat("?")
                assert caught.value.code == "invalid_api_key"

    served(work, settings=Settings(api_key_file=keys, max_body_bytes=4096))


def test_failures_of_the_engine() -> None:
    def fails(request: FakeRequest) -> str:
        raise OSError("no disk")

    def ask(client: Client) -> None:
        with pytest.raises(ServerError) as caught:
            client.chat("?")
        assert (caught.value.status, type(caught.value)) == (500, ServerError)

    asked(ask, FakeEngine(fails), max_retries=0)
    engine = FakeEngine()

    def ask_dead(client: Client) -> None:
        engine.healthy = False
        with pytest.raises(Unavailable) as caught:
            client.chat("?")
        assert caught.value.retry_after_s

    asked(ask_dead, engine, max_retries=0)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"detail": "no"}, BadRequest, "no"),
        (401, {"error": "Unauthorized"}, AuthenticationFailed, "Unauthorized"),
        (418, {"error": {"message": "teapot", "code": 418}}, APIError, "teapot"),
        (502, b"<html>bad gateway</html>", ServerError, "bad gateway"),
        (404, b"", NotFound, "no reason"),
        (307, {}, APIError, "no reason"),
    ],
)
def test_errors_of_other_servers_are_typed_too(status: int, body: Any, error: type[APIError], message: str) -> None:
    async def main() -> None:
        reply = Reply(status, body, {"x-should-retry": "false"})
        async with scripted(reply) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(APIError, match=message) as caught:
                await client.chat("?")
            assert type(caught.value) is error
            assert caught.value.status == status

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"<html>", {}, [], {"id": "1", "model": "m", "created": 1, "choices": 4}])
def test_an_answer_in_another_format_is_refused(body: Any) -> None:
    async def main() -> None:
        async with scripted(Reply(body=body)) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(UnexpectedAnswer):
                await client.chat("?")

    asyncio.run(main())


def test_what_another_server_leaves_out_is_none() -> None:
    async def main() -> None:
        async with scripted() as server, AsyncClient(server.url, model="fake") as client:
            result = await client.chat("?")
            assert (result.tts, result.text, result.choices[0].logprobs) == (None, "Four.", None)

    asyncio.run(main())


def test_what_is_needed_before_asking() -> None:
    with Client("http://127.0.0.1:9") as client:
        for call in (client.chat, client.stream):
            with pytest.raises(ValueError, match="model is required"):
                call("?")
    for url in ("127.0.0.1:8000", "ftp://host", ""):
        with pytest.raises(ValueError, match="base_url"):
            Client(url)


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
                await client.chat("?", tts=LONG, timeout=0.3)
            await until(lambda: engine.live == 0)
            assert 0 < engine.generated < 4 * 5000

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


def modules() -> list[str]:
    package = tts_server.client
    return [package.__name__, *(f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__))]


def test_the_examples_do_what_they_say() -> None:
    def work(url: str) -> doctest.TestResults:
        runner, known = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), dict(vars(tts_server.client))
        with Client(url) as client:
            known |= {"base_url": url, "client": client, "asyncio": asyncio, "openai": openai}
            for name in modules():
                module = import_module(name)
                for test in doctest.DocTestFinder().find(module, extraglobs={**known, **vars(module)} | known):
                    runner.run(test)
        return runner.summarize(verbose=False)

    results = served(work)
    assert results.failed == 0
    assert results.attempted >= 15


def test_everything_public_is_exported_and_sorted() -> None:
    names = [name for name in vars(tts_server.client) if not name.startswith("_")]
    public = {name for name in names if not isinstance(vars(tts_server.client)[name], type(sys))}
    assert set(tts_server.client.__all__) == public
    assert len(tts_server.client.__all__) == len(public)


def test_importing_the_client_imports_no_server_and_no_openai() -> None:
    code = "import sys, tts_server.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    heavy = {"fastapi", "starlette", "uvicorn", "strategies", "prm", "openai", "numpy", "torch"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in names)
    server = [name for name in names if name.startswith("tts_server.") and not name.startswith("tts_server.client")]
    assert server == []
