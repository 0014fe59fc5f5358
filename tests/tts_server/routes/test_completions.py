"""`POST /v1/completions`: texts, in OpenAI's older form."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from serving import serving, until

from prm.fake import FakePRM
from strategies.core.contracts import Sampling
from tts_server.config import RequestLimit, Settings
from tts_server.engines.fake import FakeEngine, FakeRequest, encode, pieces
from tts_server.engines.fake_parts.tokens import prompt_logprobs
from tts_server.schema.completions import CompletionRequest

PROMPT = "What is 2 + 2?"
IDS = list(encode(PROMPT))
SAID = "It is four, and that is all there is to say about it."

SOLUTION = "It is a sum.\n\nTwo and two are four.\n\nThe answer is \\boxed{4}."


def told(**fields: Any) -> dict[str, Any]:
    return {"model": "fake", "prompt": PROMPT, **fields}


async def post(client: httpx.AsyncClient, **fields: Any) -> Any:
    response = await client.post("/v1/completions", json=told(**fields))
    assert response.status_code == 200, response.text
    return response.json()


async def stream(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await client.post("/v1/completions", json=told(stream=True, **fields))
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    events = response.text.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def say(request: FakeRequest) -> str:
    return SAID


@asynccontextmanager
async def server(engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(engine or FakeEngine(say), [FakePRM()], Settings(**settings)) as client:
        yield client


def served(
    ask: Callable[[httpx.AsyncClient], Awaitable[Any]], engine: FakeEngine | None = None, **settings: Any
) -> Any:
    async def main() -> Any:
        async with server(engine, **settings) as client:
            return await ask(client)

    return asyncio.run(main())


def posted(**fields: Any) -> Any:
    return served(lambda client: post(client, **fields))


def refused(engine: FakeEngine | None = None, settings: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    async def ask(client: httpx.AsyncClient) -> Any:
        response = await client.post("/v1/completions", json=told(**fields))
        assert response.status_code == 400, response.text
        return response.json()["error"]

    error: dict[str, Any] = served(ask, engine, **(settings or {}))
    assert error["type"] == "invalid_request_error"
    return error


def test_a_text_goes_on() -> None:
    body = posted(max_tokens=4)
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["model"] == "fake"
    text = "".join(pieces(SAID)[:4])
    assert body["choices"] == [
        {"index": 0, "text": text, "logprobs": None, "finish_reason": "length", "stop_reason": None}
    ]
    used = body["usage"]
    assert (used["prompt_tokens"], used["completion_tokens"], used["total_tokens"]) == (len(IDS), 4, len(IDS) + 4)
    assert used["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert body["tts"]["strategy"] == "single"


def test_sixteen_tokens_are_the_default() -> None:
    engine = FakeEngine(lambda request: "word " * 99)
    assert served(post, engine)["usage"]["completion_tokens"] == 16


def test_each_prompt_has_n_choices_and_lists_are_answered_in_order() -> None:
    def script(request: FakeRequest) -> str:
        return f"[{request.text} {request.index}]"

    async def main() -> None:
        async with server(FakeEngine(script)) as client:
            listed = await post(client, prompt=["a b", "c", "d e f"], n=2)
            ids = await post(client, prompt=[list(encode("a b")), list(encode("c")), list(encode("d e f"))], n=2)
            one = await post(client, prompt=list(encode("a b")), n=2)
            chunks = await stream(client, prompt=["a b", "c", "d e f"], n=2, stream_options={"include_usage": True})
        texts = [choice["text"] for choice in listed["choices"]]
        assert texts == ["[a b 0]", "[a b 1]", "[c 0]", "[c 1]", "[d e f 0]", "[d e f 1]"]
        assert [choice["index"] for choice in listed["choices"]] == list(range(6))
        assert [choice["text"] for choice in ids["choices"]] == texts
        assert [choice["text"] for choice in one["choices"]] == texts[:2]
        assert isinstance(one["tts"], dict)
        assert [part["strategy"] for part in listed["tts"]] == ["single"] * 3
        first = listed["tts"][0]["trace_id"]
        assert [part["trace_id"] for part in listed["tts"]] == [first, f"{first}-1", f"{first}-2"]
        assert listed["usage"]["prompt_tokens"] == len(encode("a b")) + len(encode("c")) + len(encode("d e f"))
        parts = sum(part["usage"]["completion_tokens"] for part in listed["tts"])
        assert listed["usage"]["completion_tokens"] == parts
        *grown, last = chunks
        assert (last["choices"], last["usage"]) == ([], listed["usage"])
        streamed = [""] * 6
        for chunk in grown:
            (choice,) = chunk["choices"]
            streamed[choice["index"]] += choice["text"]
        assert streamed == texts

    asyncio.run(main())


def test_what_samples_the_text_reaches_the_engine() -> None:
    seen: list[Sampling] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.sampling)
        return SAID

    fields = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repetition_penalty": 1.5,
        "seed": 7,
        "min_tokens": 2,
        "ignore_eos": True,
    }
    extra = {"logit_bias": {"5": 2.0}, "stop": "§", "stop_token_ids": [9], "include_stop_str_in_output": True}
    served(lambda client: post(client, **fields, **extra), FakeEngine(script))
    (sampling,) = seen
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert sampling.logit_bias == {5: 2.0}
    assert (sampling.stop, sampling.stop_token_ids, sampling.include_stop) == (("§",), (9,), True)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (None, None)


def test_a_stop_string_ends_the_text_and_is_named() -> None:
    (choice,) = posted(stop=[", and"])["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("It is four", "stop", ", and")
    (kept,) = posted(stop=[", and"], include_stop_str_in_output=True)["choices"]
    assert kept["text"] == "It is four, and"


def test_logprobs_are_four_lists_as_long_as_the_text_has_tokens() -> None:
    (choice,) = posted(logprobs=2, max_tokens=5)["choices"]
    told = choice["logprobs"]
    assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"] == [len("".join(told["tokens"][:i])) for i in range(5)]
    for token, logprob, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True):
        assert top[token] == logprob < 0


def test_an_echo_with_logprobs_tells_those_of_the_prompt() -> None:
    (choice,) = posted(echo=True, logprobs=1, max_tokens=1)["choices"]
    told = choice["logprobs"]
    assert choice["text"] == PROMPT + pieces(SAID)[0]
    assert told["tokens"] == [*pieces(PROMPT), pieces(SAID)[0]]
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"][len(IDS)] == len(PROMPT)
    expected = prompt_logprobs(tuple(IDS), 1)
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    assert told["token_logprobs"][1:-1] == [entry.logprob for entry in expected]
    for entry, top in zip(expected, told["top_logprobs"][1:-1], strict=True):
        assert top == {entry.top[0].token: entry.top[0].logprob, entry.token: entry.logprob}


@pytest.mark.parametrize("prompt", [PROMPT, IDS], ids=["text", "ids"])
def test_no_tokens_with_an_echo_are_the_prompt_alone(prompt: Any) -> None:
    body = posted(prompt=prompt, echo=True, logprobs=0, max_tokens=0)
    (choice,) = body["choices"]
    assert choice["text"] == PROMPT
    assert choice["logprobs"]["tokens"] == pieces(PROMPT)
    assert choice["finish_reason"] == "length"
    # The engine cannot but sample one token. It is counted, as what was not returned.
    assert body["usage"]["completion_tokens"] == 1
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"echo": True},
        {"logprobs": 1},
        {"echo": True, "logprobs": 2, "n": 2},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"return_token_ids": True},
        {"echo": True, "logprobs": 0, "tts": {"strategy": "best_of_n", "n": 4}},
    ],
    ids=str,
)
def test_a_stream_is_the_body_in_pieces(fields: dict[str, Any]) -> None:
    fields = {"seed": 5, "max_tokens": 6, **fields}

    async def main() -> None:
        async with server() as client:
            whole = await post(client, **fields)
            *chunks, last = await stream(client, **fields, stream_options={"include_usage": True})
        assert last["usage"] == whole["usage"]
        assert len({chunk["id"] for chunk in (*chunks, last)}) == 1
        assert all(chunk["object"] == "text_completion" for chunk in chunks)
        for choice in whole["choices"]:
            mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
            assert "".join(piece["text"] for piece in mine) == choice["text"]
            assert [piece["finish_reason"] for piece in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
            if choice["logprobs"]:
                for key, values in choice["logprobs"].items():
                    told = [value for piece in mine if piece["logprobs"] for value in piece["logprobs"][key]]
                    if key in ("tokens", "text_offset"):
                        assert told == values
                    assert len(told) == len(values)
            for key in ("token_ids", "prompt_token_ids"):
                assert [token for piece in mine for token in piece.get(key, [])] == choice.get(key, [])
        assert chunks[-1]["tts"]["strategy"] == whole["tts"]["strategy"]

    asyncio.run(main())


def test_token_ids_are_returned_on_request() -> None:
    (choice,) = posted(return_token_ids=True, max_tokens=3)["choices"]
    assert choice["token_ids"] == list(encode(SAID))[:3]
    assert choice["prompt_token_ids"] == IDS


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("best_of_n", {"n": 4}), ("self_consistency", {"n": 4}), ("beam_search", {"n": 4}), ("mcts", {})],
)
def test_a_strategy_searches_and_its_reward_model_reads_the_prompt(strategy: str, options: dict[str, Any]) -> None:
    questions: list[str] = []

    def score(question: str, steps: Any) -> list[float]:
        questions.append(question)
        return [0.5 + 0.01 * len(steps)] * len(steps)

    def script(request: FakeRequest) -> str:
        return SOLUTION.removeprefix(request.text.removeprefix(PROMPT))

    async def main() -> None:
        async with serving(FakeEngine(script), [FakePRM(score)]) as client:
            for prompt in (PROMPT, IDS):
                tts = {"strategy": strategy, **options}
                body = await post(client, prompt=prompt, max_tokens=200, tts=tts)
                assert body["tts"]["strategy"] == strategy
                assert body["tts"]["samples"] > 1
                assert body["choices"][0]["text"] == SOLUTION
                used = body["usage"]
                assert used["completion_tokens"] == body["tts"]["usage"]["completion_tokens"]
                assert used["prompt_tokens"] == len(IDS)
        assert set(questions) <= {PROMPT}
        assert questions or strategy == "self_consistency"

    asyncio.run(main())


def test_a_strategy_is_named_by_the_models_alias() -> None:
    body = posted(model="fake@best_of_n")
    assert (body["model"], body["tts"]["strategy"], body["tts"]["samples"]) == ("fake@best_of_n", "best_of_n", 8)


def test_a_json_schema_is_followed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = served(lambda client: post(client, response_format=wanted, max_tokens=50), FakeEngine())
    assert isinstance(json.loads(body["choices"][0]["text"])["a"], int)


BAD, NOT = "invalid_value", "unsupported_parameter"
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, BAD, "prompt"),
    ({"prompt": ""}, BAD, "prompt"),
    ({"prompt": []}, BAD, "prompt"),
    ({"prompt": [1, "a"]}, BAD, "prompt"),
    ({"prompt": [[1], "a"]}, BAD, "prompt"),
    ({"prompt": [[]]}, BAD, "prompt"),
    ({"prompt": [-1]}, BAD, "prompt"),
    ({"prompt": [True]}, BAD, "prompt"),
    ({"prompt": ["a"] * 1025}, BAD, "prompt"),
    ({"prompt": [200]}, BAD, "prompt"),
    ({"prompt": {"a": 1}}, BAD, "prompt"),
    ({"suffix": "x"}, NOT, "suffix"),
    ({"best_of": 3}, NOT, "best_of"),
    ({"best_of": 1, "n": 2}, NOT, "best_of"),
    ({"max_tokens": 0}, BAD, "max_tokens"),
    ({"max_tokens": -1, "echo": True}, BAD, "max_tokens"),
    ({"min_tokens": 17}, BAD, "min_tokens"),
    ({"logprobs": 21}, BAD, "logprobs"),
    ({"logprobs": True}, BAD, "logprobs"),
    ({"n": 0}, BAD, "n"),
    ({"temperature": 2.1}, BAD, "temperature"),
    ({"stop": ["a"] * 5}, BAD, "stop"),
    ({"stream_options": {"include_usage": True}}, BAD, "stream_options"),
    ({"use_beam_search": True}, NOT, "use_beam_search"),
    ({"bad_words": ["x"]}, NOT, "bad_words"),
    ({"allowed_token_ids": [1]}, NOT, "allowed_token_ids"),
    ({"prompt_logprobs": 1}, NOT, "prompt_logprobs"),
    ({"truncate_prompt_tokens": 5}, NOT, "truncate_prompt_tokens"),
    ({"skip_special_tokens": False}, NOT, "skip_special_tokens"),
    ({"tts": {"strategy": "none"}}, BAD, "tts.strategy"),
    ({"tts": {"strategy": "self_refine"}}, NOT, "tts.strategy"),
    ({"tts": {"strategy": "best_of_n", "system_prompt": "boxed"}}, NOT, "tts.system_prompt"),
    ({"tts": {"strategy": "beam_search"}, "echo": True, "logprobs": 1}, NOT, "echo"),
    ({"tts": {"strategy": "beam_search"}, "include_stop_str_in_output": True}, NOT, "include_stop_str_in_output"),
    ({"tts": {"strategy": "beam_search"}, "presence_penalty": 1.0}, NOT, "presence_penalty"),
]


def test_what_is_not_honoured_is_refused_by_name() -> None:
    async def main() -> None:
        async with server() as client:
            for fields, code, param in REFUSED:
                response = await client.post("/v1/completions", json=told(**fields))
                assert response.status_code == 400, (fields, response.text)
                error = response.json()["error"]
                assert (error["code"], error["param"]) == (code, param), fields

    asyncio.run(main())


def test_an_unknown_model_is_not_found() -> None:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/completions", json=told(model="other"))

    response: httpx.Response = served(ask)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_what_asks_for_nothing_is_taken() -> None:
    neutral = {"suffix": "", "best_of": 2, "n": 2, "logit_bias": None, "echo": None, "user": "u", "bad_words": []}
    assert len(posted(**neutral, skip_special_tokens=True, anything="else")["choices"]) == 2


def test_a_prompt_that_leaves_no_room_is_refused_by_name() -> None:
    error = refused(FakeEngine(say, max_model_len=16), prompt=["a", "b " * 16])
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "maximum context length is 16 tokens" in error["message"]


def test_an_engine_that_speaks_chat_alone_takes_no_texts() -> None:
    error = refused(FakeEngine(say, continues=False))
    assert (error["code"], error["param"]) == ("unsupported_parameter", "prompt")


def test_prompts_share_the_servers_limit() -> None:
    limit = {"max_request": RequestLimit(max_samples=6)}
    assert refused(settings=limit, prompt=["a", "b", "c"], n=3)["param"] == "n"
    body = served(lambda client: post(client, prompt=["a", "b", "c"], n=2), **limit)
    assert len(body["choices"]) == 6


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_stops_every_prompt(streaming: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda request: "word " * 999, token_s=0.01)
        async with serving(engine) as client:
            fields = told(prompt=["a", "b", "c"], n=2, max_tokens=900, stream=streaming)
            asked = asyncio.create_task(client.post("/v1/completions", json=fields))
            await until(lambda: engine.live == 6 and engine.generated > 6)
            asked.cancel()
            await until(lambda: engine.live == 0)
            generated = engine.generated
            await asyncio.sleep(0.1)
            assert engine.generated == generated

    asyncio.run(main())


def test_a_prompt_that_fails_fails_the_request() -> None:
    def script(request: FakeRequest) -> str:
        if request.text == "b":
            raise RuntimeError("no")
        return SAID

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/completions", json=told(prompt=["a", "b"]))

    response: httpx.Response = served(ask, FakeEngine(script))
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")


def test_prompts_are_read_whatever_their_form() -> None:
    def prompts(prompt: Any) -> Any:
        request = CompletionRequest.model_validate({"model": "m", "prompt": prompt})
        return request.prompts, request.is_list

    assert prompts("a") == (["a"], False)
    assert prompts(["a"]) == (["a"], True)
    assert prompts([1, 2]) == ([[1, 2]], False)
    assert prompts([[1, 2], [3]]) == ([[1, 2], [3]], True)
