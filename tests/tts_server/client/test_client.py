"""The client against a server: what is sent, what comes back, and what ends when the client leaves."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asking import asked, sent
from scripted import DONE, WHOLE, Reply, chunk, scripted
from serving import serving

from prm.fake import FakePRM
from tts_server.client import (
    TTS,
    AsyncClient,
    BadRequest,
    BestOfN,
    Budget,
    ChatResult,
    Client,
    Delta,
    Final,
    NotFound,
    Progress,
    Search,
    Trace,
)
from tts_server.engines.fake import FakeEngine


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


def test_a_live_stream_says_how_far_the_search_is() -> None:
    def ask(client: Client) -> None:
        with client.stream("?", tts=TTS("self_consistency", n=4), live=True) as stream:
            events = list(stream)
        searches = [event.search for event in events if isinstance(event, Progress) and event.search]
        assert [search.samples for search in searches] == [4] * len(searches)
        assert [search.growing for search in searches] == [4, 3, 2, 1, 0]
        assert all(event.text for event in events if isinstance(event, Progress))
        (final,) = [event.result for event in events if isinstance(event, Final)]
        assert final.tts
        assert final.tts.trace_id == searches[0].trace_id
        assert final.tts.growing is None
        with client.stream("?", tts=TTS("self_consistency", n=4)) as plain:
            assert [event.search for event in plain if isinstance(event, Progress)] == [None] * len(searches)

    asked(ask)


def test_a_beat_of_a_live_stream_is_progress_without_text() -> None:
    async def main() -> None:
        so_far = {"strategy": "single", "trace_id": "trace-1", "samples": 1, "growing": 1}
        beat = chunk({}, tts=so_far, usage={"completion_tokens": 7})
        frames = [beat, chunk({"content": "Four."}), chunk({}, finish_reason="stop"), DONE]
        async with scripted(Reply(frames=frames)) as server, AsyncClient(server.url, model="fake") as client:
            first, *_ = [event async for event in client.stream("?", live=True)]
        options = {"include_usage": True, "continuous_usage_stats": True}
        assert server.requests[0][1]["stream_options"] == options
        assert first == Progress("", 0, Search.model_validate(so_far))

    asyncio.run(main())


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


def test_a_connection_is_used_again_also_after_a_stream() -> None:
    async def main() -> None:
        stream = Reply(frames=[chunk({"content": "Four."}), DONE])
        replies = [Reply(body=WHOLE), stream, Reply(429, {}, {"retry-after-ms": "1"}), stream]
        async with scripted(*replies) as server, AsyncClient(server.url, model="fake") as client:
            await client.chat("?")
            await client.stream("?").result()
            async with client.stream("?") as again:
                await again.result()
            assert (len(server.requests), server.connections) == (4, 1)

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
        record = {
            "id": "a/b",
            "created": 1.5,
            "model": "fake",
            "strategy": "single",
            "status": "done",
            "content": "redacted",
            "calls": [{"id": 0, "started_s": 0.5, "samples": [{"id": 0, "state": "returned", "new": 1}]}],
            "scorings": [],
            "events": [],
        }
        async with scripted(Reply(body=record)) as server, AsyncClient(server.url) as client:
            trace = await client.trace("a/../b?c")
            assert isinstance(trace, Trace)
            assert trace.raw == record
            assert (trace.samples[0].state, trace.samples[0].text, trace.final) == ("returned", None, None)
            assert server.requests[0][0] == "/v1/traces/a%2F..%2Fb%3Fc"

    asyncio.run(main())


def test_what_another_server_leaves_out_is_none() -> None:
    async def main() -> None:
        async with scripted() as server, AsyncClient(server.url, model="fake") as client:
            result = await client.chat("?")
            assert (result.tts, result.text, result.choices[0].logprobs) == (None, "Four.", None)

    asyncio.run(main())
