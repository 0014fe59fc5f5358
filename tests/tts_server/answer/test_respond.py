"""A request's life: who leaves is not served on, what is late is answered with what there is, errors come whole."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx
import pytest
from patience import NEVER_S
from serving import ask, body, content, frames, serving, until

import strategies
from prm import FakePRM
from strategies.core.contracts import text_of
from tts_server.answer import respond as lifetime
from tts_server.app import create_app
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest
from tts_server.errors import UpstreamError

SEARCHES: list[dict[str, Any]] = [
    {"tts": {"strategy": "single"}, "n": 8},
    {"tts": {"strategy": "self_consistency", "n": 8}},
    {"tts": {"strategy": "best_of_n", "n": 8}},
]


def named(fields: dict[str, Any]) -> str:
    return str(fields["tts"]["strategy"])


def long(request: FakeRequest) -> str:
    return "step by step\n\n" * 200


async def stays_stopped(engine: FakeEngine) -> None:
    await until(lambda: engine.live == 0)
    generated = engine.generated
    await asyncio.sleep(0.1)
    assert (engine.live, engine.generated) == (0, generated)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_a_client_that_leaves_stops_every_branch(fields: dict[str, Any], stream: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(long, token_s=0.01)
        async with serving(engine, [FakePRM()]) as client:
            asked = asyncio.create_task(ask(client, **fields, stream=stream))
            await until(lambda: engine.live == 8 and engine.generated > 8)
            asked.cancel()
            await stays_stopped(engine)

    asyncio.run(main())


@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_a_client_that_leaves_after_the_first_byte_stops_every_branch(fields: dict[str, Any]) -> None:
    async def main() -> None:
        engine = FakeEngine(long, token_s=0.01)
        async with serving(engine, [FakePRM()]) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body(stream=True, **fields)) as response:
                # Held, for a dropped iterator closes the connection.
                pieces = response.aiter_bytes()
                await anext(pieces)
                await until(lambda: engine.generated > 16)
                assert engine.live == 8
            await stays_stopped(engine)

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_before_the_first_token_stops_every_branch(stream: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(long, token_s=5)
        async with serving(engine) as client:
            asked = asyncio.create_task(ask(client, n=8, stream=stream))
            await until(lambda: engine.live == 8)
            asked.cancel()
            await stays_stopped(engine)
        assert engine.generated == 0

    asyncio.run(main())


def test_a_client_that_leaves_while_it_is_scored_stops_the_reward_model() -> None:
    ended: list[str] = []

    class Slow(FakePRM):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            ended.append("begun")
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("cancelled")

    async def main() -> None:
        async with serving(prms=[Slow()]) as client:
            asked = asyncio.create_task(ask(client, tts={"strategy": "best_of_n"}))
            await until(lambda: ended == ["begun"])
            asked.cancel()
            await until(lambda: ended == ["begun", "cancelled"])

    asyncio.run(main())


def test_a_thousand_clients_that_left_leave_nothing_behind() -> None:
    async def main() -> None:
        engine = FakeEngine(long, token_s=0.001)
        app = create_app(engine, [FakePRM()])
        kinds: list[dict[str, Any]] = [
            {**fields, "stream": stream} for fields in (*SEARCHES, {"tts": {}}) for stream in (False, True)
        ]

        async def leave(fields: dict[str, Any]) -> None:
            data = json.dumps(body(**fields)).encode()
            said = iter([{"type": "http.request", "body": data, "more_body": False}])
            gone = asyncio.Event()
            sent: list[Any] = []

            async def receive() -> Any:
                message = next(said, None)
                if message is None:
                    await gone.wait()
                    return {"type": "http.disconnect"}
                return message

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "path": "/v1/chat/completions",
                "raw_path": b"/v1/chat/completions",
                "root_path": "",
                "scheme": "http",
                "query_string": b"",
                "headers": [(b"content-type", b"application/json")],
                "client": ("127.0.0.1", 1),
                "server": ("127.0.0.1", 2),
            }
            request = asyncio.create_task(app(scope, receive, send))
            while not engine.live:  # noqa: ASYNC110  what is waited for sets no event
                await asyncio.sleep(0)
            gone.set()
            await request
            assert engine.live == 0
            ends = [m for m in sent if m["type"] == "http.response.body" and not m.get("more_body")]
            # Before its answer began, a client that left is told so, and reads it no more.
            assert not ends or (sent[0]["status"], ends) == (499, [{"type": "http.response.body", "body": b""}])

        before = asyncio.all_tasks()
        for i in range(1000):
            await leave(kinds[i % len(kinds)])
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(main())


@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_a_deadline_returns_the_best_so_far(fields: dict[str, Any]) -> None:
    def some_are_short(request: FakeRequest) -> str:
        return "\\boxed{7}" if request.index < 3 else long(request)

    async def main() -> None:
        engine = FakeEngine(some_are_short, token_s=0.005)
        async with serving(engine, [FakePRM()]) as client:
            tts = fields["tts"] | {"budget": {"deadline_s": 0.3}}
            seen = (await ask(client, **fields | {"tts": tts})).json()
            assert seen["tts"]["stop_reason"] == "deadline"
            assert seen["tts"]["answer"] == "7"
            assert seen["choices"][0]["message"]["content"] == "\\boxed{7}"
            assert seen["choices"][0]["finish_reason"] == "stop"
            assert seen["usage"]["completion_tokens"] == engine.generated
            await stays_stopped(engine)

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_a_deadline_before_anything_is_a_whole_answer_that_was_cut(fields: dict[str, Any], stream: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=30)
        async with serving(engine, [FakePRM()]) as client:
            late = fields | {"tts": fields["tts"] | {"budget": {"deadline_s": 0.1}}}
            if stream:
                *_, last = await frames(client, **late)
                told, reason = last["tts"], last["choices"][0]["finish_reason"]
            else:
                seen = (await ask(client, **late)).json()
                assert seen["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}
                assert seen["usage"]["completion_tokens"] == 0
                told, reason = seen["tts"], seen["choices"][0]["finish_reason"]
            assert (told["stop_reason"], told["answer"], reason) == ("deadline", None, "length")
            await stays_stopped(engine)

    asyncio.run(main())


def test_a_reward_model_that_hangs_leaves_the_vote() -> None:
    def seven(request: FakeRequest) -> str:
        return f"\\boxed{{{1 if request.index == 0 else 7}}}"

    async def main() -> None:
        async with serving(FakeEngine(seven), [FakePRM(delay_s=60)]) as client:
            seen = await ask(client, tts={"strategy": "best_of_n", "n": 4, "budget": {"deadline_s": 0.3}})
            told = seen.json()["tts"]
            assert (told["stop_reason"], told["answer"], told["score"]) == ("deadline", "7", None)
            assert (told["samples"], told["usage"]["prm_calls"]) == (4, 1)

    asyncio.run(main())


@pytest.mark.parametrize("fields", SEARCHES, ids=named)
@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({}, None),
        ({"max_tokens": 20}, "max_tokens"),
        ({"max_samples": 3}, "max_samples"),
        ({"max_tokens": 1}, "max_tokens"),
    ],
    ids=["finished", "tokens", "samples", "one token"],
)
def test_usage_is_what_the_engine_generated(fields: dict[str, Any], budget: dict[str, int], reason: str | None) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, [FakePRM()]) as client:
            asked = fields | {"tts": fields["tts"] | {"budget": budget, "return_candidates": True}}
            seen = (await ask(client, **asked)).json()
            assert seen["tts"]["stop_reason"] == reason
            used = seen["usage"]
            assert used["completion_tokens"] == seen["tts"]["usage"]["completion_tokens"] == engine.generated > 0
            assert used["completion_tokens"] == sum(c["completion_tokens"] for c in seen["tts"]["candidates"])
            assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
            returned = sum(c["completion_tokens"] for c in seen["tts"]["candidates"][:1])
            if len(seen["choices"]) == 1 and len(seen["tts"]["candidates"]) == 1:
                assert used["completion_tokens_details"]["reasoning_tokens"] == used["completion_tokens"] - returned
            if "max_tokens" in budget:
                assert used["completion_tokens"] <= budget["max_tokens"]
            if "max_samples" in budget:
                assert seen["tts"]["samples"] == budget["max_samples"]
            first = engine.generated
            *said, last = await frames(client, **asked, stream_options={"include_usage": True})
            assert last["choices"] == []
            told = next(chunk["tts"] for chunk in said if "tts" in chunk)
            spent = last["usage"]["completion_tokens"]
            assert spent == told["usage"]["completion_tokens"] == engine.generated - first

    asyncio.run(main())


@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_a_failing_branch_of_eight_is_recorded_and_the_others_go_on(fields: dict[str, Any]) -> None:
    def third_fails(request: FakeRequest) -> str:
        if request.index == 3:
            raise UpstreamError("the upstream answered 503")
        return "\\boxed{7}"

    async def main() -> None:
        async with serving(FakeEngine(third_fails), [FakePRM()]) as client:
            asked = fields | {"tts": fields["tts"] | {"return_candidates": True}}
            seen = (await ask(client, **asked)).json()
            assert seen["tts"]["answer"] == "7"
            assert [c["finish_reason"] for c in seen["tts"]["candidates"]] == ["stop"] * 3 + ["error"] + ["stop"] * 4
            assert seen["tts"]["candidates"][3]["error"] == "the upstream answered 503"
            assert {c["message"]["content"] for c in seen["choices"]} == {"\\boxed{7}"}
            assert content(await frames(client, **asked)) == "\\boxed{7}"

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fields", SEARCHES, ids=named)
def test_when_all_fail_the_first_cause_is_the_answer(fields: dict[str, Any], stream: bool) -> None:
    def fails(request: FakeRequest) -> str:
        raise UpstreamError(f"the upstream answered {500 + request.index}")

    async def main() -> None:
        async with serving(FakeEngine(fails), [FakePRM()]) as client:
            response = await ask(client, **fields, stream=stream)
            assert response.status_code == 502
            assert response.json()["error"]["message"] == "the upstream answered 500"
            # Nothing was generated, so to ask again costs nothing twice.
            assert "x-should-retry" not in response.headers

    asyncio.run(main())


class Breaking(FakeEngine):
    """Fails in the middle of every call."""

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        async for chunk in super().generate(*args, **kwargs):
            yield chunk
            if self.generated >= 5:
                raise UpstreamError("the connection broke")


def test_an_error_after_the_first_event_is_a_frame_before_the_end() -> None:
    async def main() -> None:
        async with serving(Breaking()) as client:
            *said, last = await frames(client)
            assert content(said).startswith("You said")
            assert last == {
                "error": {
                    "message": "the connection broke",
                    "type": "server_error",
                    "param": None,
                    "code": "upstream_error",
                }
            }
            assert not any(choice["finish_reason"] for chunk in said for choice in chunk["choices"])

    asyncio.run(main())


def test_an_error_after_generation_began_is_not_to_be_repeated() -> None:
    async def main() -> None:
        async with serving(Breaking()) as client:
            response = await ask(client)
            assert response.status_code == 502
            assert response.headers["x-should-retry"] == "false"

    asyncio.run(main())


def test_a_bug_in_a_stream_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(FakePRM):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            raise ValueError("/etc/secret")

    async def main() -> None:
        async with serving(prms=[Buggy()]) as client:
            *_, last = await frames(client, tts={"strategy": "best_of_n"})
            assert last["error"] == {
                "message": "The server failed to answer this request.",
                "type": "server_error",
                "param": None,
                "code": "internal_error",
            }
            response = await ask(client, tts={"strategy": "best_of_n"})
            assert response.status_code == 500
            assert response.headers["x-should-retry"] == "false"
            assert response.headers["x-request-id"]
            assert "secret" not in response.text

    asyncio.run(main())
    assert "/etc/secret" in caplog.text


def test_a_silent_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "HEARTBEAT_S", 0.05)

    async def main() -> None:
        async with serving(prms=[FakePRM(delay_s=0.4)]) as client:
            seen = await frames(client, tts={"strategy": "best_of_n"})
            beats = [chunk for chunk in seen if chunk["choices"][0]["delta"] == {}][:-1]
            assert len(beats) >= 3
            assert {beat["choices"][0]["finish_reason"] for beat in beats} == {None}
            assert {chunk["id"] for chunk in seen} == {seen[0]["id"]}
            assert seen[-1]["choices"][0]["finish_reason"] == "stop"
            busy = await frames(client)
            assert sum(chunk["choices"][0]["delta"] == {} for chunk in busy) == 1

    asyncio.run(main())


def test_a_stream_that_waits_for_its_first_token_begins_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "HEARTBEAT_S", 0.05)

    def late_failure(request: FakeRequest) -> str:
        raise UpstreamError("lost")

    class Slow(FakeEngine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.3)
            async for chunk in super().generate(*args, **kwargs):
                yield chunk

    async def main() -> None:
        async with serving(Slow()) as client:
            seen = await frames(client)
            assert [chunk["choices"][0]["delta"] for chunk in seen[:3]] == [{}] * 3
            first = next(chunk for chunk in seen if chunk["choices"][0]["delta"])
            assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert seen[-1]["choices"][0]["finish_reason"] == "stop"
        async with serving(Slow(late_failure)) as client:
            *_, last = await frames(client)
            assert last["error"]["message"] == "lost"
            # Without a stream nothing has begun.
            assert (await ask(client)).status_code == 502

    asyncio.run(main())


def test_no_stream_is_silent_for_fifteen_seconds() -> None:
    assert lifetime.HEARTBEAT_S <= 12


def test_two_hundred_streams_at_once_are_all_answered_and_none_mixed_up() -> None:
    def repeats(request: FakeRequest) -> str:
        return f"You said: {text_of(request.messages[-1])} \\boxed{{{len(request.messages)}}}"

    async def main() -> None:
        engine = FakeEngine(repeats, token_s=0.001)
        async with serving(engine, [FakePRM()]) as client:

            async def one(i: int) -> None:
                kind = SEARCHES[i % 3] | {"n": 1} | ({"tts": {"strategy": "best_of_n", "n": 3}} if i % 3 == 2 else {})
                question = f"question number {i} of 200"
                seen = await frames(
                    client,
                    **kind | {"messages": [{"role": "user", "content": question}]},
                    stream_options={"include_usage": True},
                )
                assert content(seen) == f"You said: {question} \\boxed{{1}}"
                assert len({chunk["id"] for chunk in seen}) == 1
                spent.append(seen[-1]["usage"]["completion_tokens"])

            spent: list[int] = []
            async with asyncio.timeout(NEVER_S), asyncio.TaskGroup() as group:
                for i in range(200):
                    group.create_task(one(i))
            assert len(spent) == 200
            assert sum(spent) == engine.generated

    asyncio.run(main())


def test_eight_samples_without_an_answer_are_still_a_text() -> None:
    def lost(request: FakeRequest) -> FakeReply:
        return FakeReply("I do not know.")

    async def main() -> None:
        async with serving(FakeEngine(lost), [FakePRM()]) as client:
            for fields in SEARCHES:
                seen = (await ask(client, **fields)).json()
                assert seen["choices"][0]["message"]["content"] == "I do not know."
                assert seen["choices"][0]["finish_reason"] == "stop"
                assert seen["tts"]["answer"] is None
                assert seen["tts"]["votes"] == []

    asyncio.run(main())


def test_a_server_that_closes_a_slow_request_s_connection_keeps_no_waiter() -> None:
    """Health answers at once while requests wait, and after all of them left."""

    async def main() -> None:
        engine = FakeEngine(long, token_s=0.05)
        async with serving(engine) as client:
            asked = [asyncio.create_task(ask(client)) for _ in range(20)]
            await until(lambda: engine.live == 20)
            assert (await client.get("/health")).status_code == 200
            for task in asked:
                task.cancel()
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert Counter(map(type, results)) == {asyncio.CancelledError: 20}
            await stays_stopped(engine)
            assert (await client.get("/health")).status_code == 200
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/chat/completions", json=body(), timeout=httpx.Timeout(NEVER_S, read=0.2))
            await stays_stopped(engine)

    asyncio.run(main())


@pytest.mark.parametrize("name", strategies.registry())
def test_probes_are_answered_while_a_search_runs(name: str) -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.002)
        async with serving(engine, [FakePRM()]) as client:
            search = asyncio.create_task(ask(client, tts={"strategy": name}, max_tokens=60))
            await until(lambda: engine.live > 0)
            answered = 0
            while not search.done() and answered < 5:
                assert (await client.get("/health")).status_code == 200
                answered += 1
            assert (await search).status_code == 200
            assert answered == 5

    asyncio.run(main())


def test_a_client_that_counts_along_is_told_all_the_time_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "PROGRESS_S", 0.02)
    fields = {"tts": {"strategy": "best_of_n", "n": 3}, "stream_options": {"continuous_usage_stats": True}}

    async def main() -> None:
        async with serving(FakeEngine(token_s=0.01), prms=[FakePRM(delay_s=0.4)]) as client:
            seen = await frames(client, **fields)
            plain = await frames(client, tts={"strategy": "best_of_n", "n": 3})
        *running, end = seen
        assert {*end["tts"]} > {"votes", "answer"}
        # Each has the usage so far, which only grows.
        tokens = [chunk["usage"]["completion_tokens"] for chunk in seen]
        assert tokens == sorted(tokens)
        assert tokens[-1] == end["tts"]["usage"]["completion_tokens"]
        so_far = [chunk["tts"] for chunk in running if "tts" in chunk]
        assert len(so_far) > 10
        assert {tts["samples"] for tts in so_far} == {3}
        assert so_far[0]["growing"] == 3
        assert so_far[-1]["growing"] == 0
        assert {tts["trace_id"] for tts in so_far} == {end["tts"]["trace_id"]}
        assert [chunk for chunk in plain[:-1] if "tts" in chunk or "usage" in chunk] == []

    asyncio.run(main())
