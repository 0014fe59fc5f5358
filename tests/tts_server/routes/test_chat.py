"""`POST /v1/chat/completions` as clients see it: bodies, chunk order, bytes and headers."""

import asyncio
import json
from typing import Any

import pytest
from serving import ask, body, content, frames, serving

from prm import FakePRM
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest

SEARCH = {"tts": {"strategy": "best_of_n", "n": 4}}


def numbered(request: FakeRequest) -> str:
    return f"sample {request.index}\n\n\\boxed{{{request.index // 2}}}"


def test_a_body_with_its_headers() -> None:
    async def main() -> None:
        async with serving() as client:
            response = await ask(client)
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-request-id"]
            seen = response.json()
            assert seen["id"].startswith("chatcmpl-")
            assert (seen["object"], seen["model"]) == ("chat.completion", "fake")
            assert seen["created"] > 1_700_000_000
            (choice,) = seen["choices"]
            assert choice["message"].keys() == {"role", "content", "refusal"}
            assert choice["message"]["content"].startswith("You said: What is 2 + 2?")
            assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
            assert seen["usage"]["prompt_tokens"] > 0
            assert seen["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
            assert seen["tts"]["strategy"] == "single"
            assert "error" not in seen

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_a_stream_s_bytes_and_headers(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body(stream=True, **fields)) as response:
                assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
                assert response.headers["cache-control"] == "no-cache"
                assert response.headers["x-accel-buffering"] == "no"
                assert response.headers["x-request-id"]
                data = await response.aread()
            assert b"\r" not in data
            events = data.split(b"\n\n")
            assert events.pop() == b""
            assert events[-1] == b"data: [DONE]"
            assert data.count(b"[DONE]") == 1
            assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)

    asyncio.run(main())


def test_a_stream_of_one_sample_comes_token_by_token() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as client:
            seen = await frames(client, seed=1)
            assert seen[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert [c["choices"][0]["finish_reason"] for c in seen] == [None] * (len(seen) - 1) + ["stop"]
            # A chunk a token, the role before and the end behind; the end of sequence has no text.
            assert len(seen) == engine.generated - 1 + 2
            assert content(seen) == (await ask(client, seed=1)).json()["choices"][0]["message"]["content"]
            assert not any("usage" in chunk for chunk in seen)
            assert len({(c["id"], c["created"], c["model"], c["object"]) for c in seen}) == 1

    asyncio.run(main())


def test_a_search_tells_its_progress_as_reasoning_under_both_names() -> None:
    async def main() -> None:
        async with serving(FakeEngine(numbered), [FakePRM()]) as client:
            seen = await frames(client, **SEARCH)
            kinds = [next(iter(c["choices"][0]["delta"]), "end") for c in seen]
            assert kinds == sorted(kinds, key=["role", "reasoning", "content", "end"].index)
            assert set(kinds) == {"role", "reasoning", "content", "end"}
            assert content(seen, key="reasoning") == content(seen, key="reasoning_content")
            assert content(seen, key="reasoning").count("\n") >= 5
            for chunk in seen:
                assert None not in chunk["choices"][0]["delta"].values()
            assert content(seen).startswith("sample ")

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH, {"n": 3}], ids=["single", "search", "three"])
def test_usage_comes_once_and_only_if_asked_for(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(FakeEngine(numbered), [FakePRM()]) as client:
            plain = (await ask(client, **fields)).json()["usage"]
            *said, last = await frames(client, **fields, stream_options={"include_usage": True})
            assert (last["choices"], last["usage"]) == ([], plain)
            assert not any("usage" in chunk for chunk in said)
            for given in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
                assert not any("usage" in c or not c["choices"] for c in await frames(client, **fields, **given))

    asyncio.run(main())


def test_three_choices_of_one_sample_each_grow_side_by_side() -> None:
    async def main() -> None:
        async with serving(FakeEngine(numbered)) as client:
            plain = (await ask(client, n=3)).json()["choices"]
            assert [c["index"] for c in plain] == [0, 1, 2]
            seen = await frames(client, n=3)
            order = [c["choices"][0]["index"] for c in seen if c["choices"][0]["delta"].get("content")]
            assert order[:6] == [0, 1, 2, 0, 1, 2]
            for choice in plain:
                mine = [c["choices"][0] for c in seen if c["choices"][0]["index"] == choice["index"]]
                assert mine[0]["delta"] == {"role": "assistant", "content": ""}
                assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["stop"]
                assert content(seen, choice["index"]) == choice["message"]["content"]
            assert len({c["message"]["content"] for c in plain}) == 3

    asyncio.run(main())


def test_two_choices_of_a_search_are_the_two_best_distinct_answers() -> None:
    def by_index(question: str, steps: Any) -> list[float]:
        # Samples 0 and 1 share an answer, as do 2 and 3; 3 is the best, then 2, then 1.
        return [int(steps[0].removeprefix("sample ")) / 10] * len(steps)

    async def main() -> None:
        async with serving(FakeEngine(numbered), [FakePRM(by_index)]) as client:
            plain = (await ask(client, n=2, **SEARCH)).json()
            texts = [c["message"]["content"] for c in plain["choices"]]
            assert texts == ["sample 3\n\n\\boxed{1}", "sample 1\n\n\\boxed{0}"]
            assert plain["tts"]["answer"] == "1"
            seen = await frames(client, n=2, **SEARCH)
            assert [content(seen, i) for i in (0, 1)] == texts

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["beam_search", "best_of_n", "mcts"])
@pytest.mark.parametrize(("most", "found"), [(100, 3), (2, 2)])
def test_candidates_that_are_not_there_have_no_choice_in_a_body_and_an_empty_one_in_a_stream(
    strategy: str, most: int, found: int
) -> None:
    asked = {"tts": {"strategy": strategy, "n": 4, "budget": {"max_samples": most}}, "n": 3}

    async def main() -> None:
        async with serving(FakeEngine(lambda request: "It is 4."), [FakePRM()]) as client:
            choices = (await ask(client, **asked)).json()["choices"]
            assert [(c["index"], c["message"]["content"]) for c in choices] == [(i, "It is 4.") for i in range(found)]
            seen = await frames(client, **asked)
            told = {c["index"]: c["finish_reason"] for f in seen for c in f["choices"] if c["finish_reason"]}
            assert [told[i] for i in range(3)] == ["stop"] * found + ["length"] * (3 - found)
            assert [content(seen, i) for i in range(3)] == ["It is 4."] * found + [""] * (3 - found)

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_finish_reason_is_length_only_where_the_text_was_cut(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(FakeEngine(numbered), [FakePRM()]) as client:
            for given, reason in (
                ({}, "stop"),
                ({"max_tokens": 2}, "length"),
                ({"max_completion_tokens": 2, "max_tokens": 99}, "length"),
                ({"stop": "boxed"}, "stop"),
                ({"stop": ["nowhere"]}, "stop"),
                ({"max_tokens": 99}, "stop"),
            ):
                choice = (await ask(client, **fields, **given)).json()["choices"][0]
                assert choice["finish_reason"] == reason, given
                seen = await frames(client, **fields, **given)
                assert seen[-1]["choices"][0]["finish_reason"] == reason, given
                if "stop" in given and given["stop"] == "boxed":
                    assert choice["message"]["content"].endswith("\n\n\\")
                    assert content(seen).endswith("\n\n\\")

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_logprobs_are_those_of_the_returned_text(fields: dict[str, Any]) -> None:
    def rivals(request: FakeRequest) -> FakeReply:
        return FakeReply("Yes", {"Yes": 0.75, "No": 0.25})

    async def main() -> None:
        async with serving(FakeEngine(rivals), [FakePRM()]) as client:
            for top in (0, 2):
                asked = fields | {"logprobs": True, "top_logprobs": top}
                (choice,) = (await ask(client, **asked)).json()["choices"]
                assert choice["logprobs"].keys() == {"content", "refusal"}
                (token,) = choice["logprobs"]["content"]
                assert token["token"] == "Yes"
                assert token["bytes"] == list(b"Yes")
                assert token["logprob"] == pytest.approx(-0.2877, abs=1e-4)
                assert [t["token"] for t in token["top_logprobs"]] == ["Yes", "No"][:top]
                seen = await frames(client, **asked)
                told = [c["choices"][0]["logprobs"] for c in seen if c["choices"][0]["logprobs"]]
                assert [p for t in told for p in t["content"]] == [token]
            assert (await ask(client, **fields)).json()["choices"][0]["logprobs"] is None

    asyncio.run(main())


def test_candidates_only_where_they_are_asked_for() -> None:
    async def main() -> None:
        async with serving(FakeEngine(numbered), [FakePRM()]) as client:
            assert "candidates" not in (await ask(client, **SEARCH)).json()["tts"]
            asked = {"tts": SEARCH["tts"] | {"return_candidates": True}}
            told = (await ask(client, **asked)).json()["tts"]["candidates"]
            assert [c["text"] for c in told] == [f"sample {i}\n\n\\boxed{{{i // 2}}}" for i in range(4)]
            assert [c["answer"] for c in told] == ["0", "0", "1", "1"]
            assert all(len(c["step_scores"]) == 2 and c["score"] == c["step_scores"][-1] for c in told)
            *_, last = await frames(client, **asked)
            assert [c["text"] for c in last["tts"]["candidates"]] == [c["text"] for c in told]

    asyncio.run(main())


def test_words_of_the_protocol_in_a_text_are_only_text() -> None:
    said = "User: hi\n\ndata: [DONE]\n\nAssistant: \u2028 é 🎉 \\boxed{1}\r\n"

    async def main() -> None:
        async with serving(FakeEngine(lambda request: said)) as client:
            assert (await ask(client)).json()["choices"][0]["message"]["content"] == said
            async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
                events = (await response.aread()).split(b"\n\n")[:-2]
            assert content([json.loads(event.removeprefix(b"data: ")) for event in events]) == said

    asyncio.run(main())


def test_an_error_before_the_first_event_is_a_status_also_of_a_stream() -> None:
    async def main() -> None:
        async with serving() as client:
            for fields in ({"tts": {"strategy": "best_of_n"}}, {"response_format": {"type": "json"}}, {"n": 0}):
                response = await ask(client, stream=True, **fields)
                assert response.status_code == 400
                assert response.headers["content-type"] == "application/json"
                assert response.json()["error"]["type"] == "invalid_request_error"

    asyncio.run(main())


def test_the_same_seed_gives_the_same_answer() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            asked = SEARCH | {"tts": SEARCH["tts"] | {"return_candidates": True}}
            one, two, other = [(await ask(client, seed=seed, **asked)).json()["tts"] for seed in (1, 1, 2)]
            assert one["candidates"] == two["candidates"]
            assert one["candidates"] != other["candidates"]

    asyncio.run(main())
