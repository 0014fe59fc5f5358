"""Chat completions with the plain openai package against a server as its user starts it: every field, line by line."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from patience import NEVER_S
from pydantic import BaseModel
from served import served

MODEL = "fake"
QUESTION: Any = [{"role": "user", "content": "What is 2 + 2?"}]
STRATEGIES = ["single", "best_of_n", "self_consistency", "confidence"]
STEPWISE = ["beam_search", "dvts", "mcts", "particle_filter", "rebase", "tree_of_thoughts", "graph_of_thoughts"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake") as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client:
        yield client


def tts(strategy: str, **options: Any) -> dict[str, Any]:
    few = {} if strategy in ("single", "tree_of_thoughts", "graph_of_thoughts") else {"n": 4}
    return {"tts": {"strategy": strategy, **few, **options}}


def create(client: openai.OpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": messages, **fields})


def refused(client: openai.OpenAI, **fields: Any) -> Any:
    """The error of a request that the server does not take."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    return caught.value


def words(chunks: Any, key: str = "content") -> str:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(getattr(delta, key, None) or "" for delta in deltas)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 3}, {}),
        ({"temperature": 0, "top_p": 0, "presence_penalty": -2, "frequency_penalty": 2, "seed": 2**63 - 1}, {}),
        ({"stop": "think"}, {}),
        ({"stop": ["a", "b", "c", "d"]}, {}),
        ({"logit_bias": {"353": -100, "354": 5}}, {}),
        ({"logprobs": True, "top_logprobs": 0}, {}),
        ({"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "verbosity": "low"}, {}),
        ({"safety_identifier": "s", "prompt_cache_key": "k", "modalities": ["text"]}, {"thinking": {"type": "x"}}),
        (
            {"max_tokens": 40},
            {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "ignore_eos": True},
        ),
        (
            {},
            {"stop_token_ids": [1], "chat_template_kwargs": {"enable_thinking": False}, "add_generation_prompt": True},
        ),
        ({}, {"stop_token_ids": None, "min_tokens": None, "ignore_eos": None, "continue_final_message": None}),
    ],
    ids=lambda given: ",".join(given) or "nothing",
)
def test_a_field_is_honoured_under_every_sampling_strategy(
    client: openai.OpenAI, strategy: str, fields: dict[str, Any], extra: dict[str, Any]
) -> None:
    reply = create(client, **fields, extra_body={**tts(strategy), **extra})
    (choice,) = reply.choices
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.role == "assistant"
    if "max_completion_tokens" in fields:
        assert choice.finish_reason == "length"
        assert 0 < len(choice.message.content) <= 3 * 6
    if fields.get("stop") == "think":
        assert choice.message.content.endswith("\n\nI ")
    if extra.get("ignore_eos"):
        assert choice.finish_reason == "length"
    if fields.get("logprobs"):
        assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
        assert [token.top_logprobs for token in choice.logprobs.content] == [[]] * len(choice.logprobs.content)


@pytest.mark.parametrize("strategy", STEPWISE)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "find"}}]),
        ("response_format", {"type": "json_object"}),
        ("presence_penalty", 1.0),
        ("frequency_penalty", 1.0),
    ],
)
def test_what_a_step_search_cannot_honour_it_refuses(
    client: openai.OpenAI, strategy: str, field: str, value: Any
) -> None:
    error = refused(client, **{field: value}, extra_body=tts(strategy))
    assert (error.param, error.code) == (field, "unsupported_parameter")
    assert strategy in error.message


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_n_are_the_best_distinct_answers(client: openai.OpenAI, strategy: str) -> None:
    reply = create(client, n=2, seed=4, extra_body=tts(strategy, **({} if strategy == "single" else {"n": 16})))
    assert [choice.index for choice in reply.choices] == [0, 1]
    if strategy != "single":
        assert len({choice.message.content for choice in reply.choices}) == 2
        assert reply.choices[0].message.content.endswith(f"\\boxed{{{reply.tts['answer']}}}.")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_seed_repeats(client: openai.OpenAI, strategy: str) -> None:
    said = [create(client, seed=7, extra_body=tts(strategy, return_candidates=True)).tts["candidates"] for _ in "ab"]
    assert said[0] == said[1]


class Point(BaseModel):
    x: int
    label: str


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_json_by_a_schema_is_parsed_by_the_sdk(client: openai.OpenAI, strategy: str) -> None:
    reply = client.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Point, extra_body=tts(strategy)
    )
    assert isinstance(reply.choices[0].message.parsed, Point)
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=Point, extra_body=tts(strategy)
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Point)


def test_a_json_object(client: openai.OpenAI) -> None:
    reply = create(client, response_format={"type": "json_object"})
    assert isinstance(json.loads(reply.choices[0].message.content), dict)


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
        },
        "strict": True,
    },
}
ASKED: Any = [{"role": "user", "content": "Call get_weather for Oslo."}]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}], ids=str
)
def test_a_conversation_with_a_tool(client: openai.OpenAI, strategy: str, choice: Any) -> None:
    fields = {"tools": [WEATHER], "tool_choice": choice, "seed": 1, "extra_body": tts(strategy)}
    reply = create(client, ASKED, **fields)
    assert reply.choices[0].finish_reason == "tool_calls"
    message = reply.choices[0].message
    assert message.content is None
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    with client.chat.completions.stream(model=MODEL, messages=ASKED, **fields) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    (streamed,) = final.choices[0].message.tool_calls or ()
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Rain."}
    after = create(client, [*ASKED, message.model_dump(exclude_none=True), result], tools=[WEATHER])
    assert after.choices[0].finish_reason == "stop"
    assert "You said: Rain." in after.choices[0].message.content


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    for fields in ({"tool_choice": "none"}, {"tool_choice": "auto", "messages": QUESTION}):
        reply = create(client, **{"messages": ASKED, **fields}, tools=[WEATHER])
        assert reply.choices[0].finish_reason == "stop"
        assert reply.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": []}, "tools", "invalid_value"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio", "unsupported_parameter"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
        ({"n": 129}, "n", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value"),
        ({"extra_body": {"tts": {"stratgy": "single"}}}, "tts.stratgy", "invalid_value"),
        ({"extra_body": {"tts": {"strategy": "best_of_n", "n": 2}}, "n": 3}, "n", "unsupported_parameter"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else None,
)
def test_what_is_refused_names_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(client, **fields)
    assert (error.param, error.code) == (param, code)
    streamed = refused(client, **fields, stream=True) if "stream_options" not in fields else error
    assert streamed.body == error.body


def test_context_overflow_has_the_words_that_clients_know(client: openai.OpenAI) -> None:
    error = refused(client, messages=[{"role": "user", "content": "word " * 40_000}])
    assert error.code == "context_length_exceeded"
    assert "This model's maximum context length is 32768 tokens. However, your messages resulted in" in str(error)


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        create(client, model="nobody")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_a_stream(client: openai.OpenAI, strategy: str) -> None:
    options = {"include_usage": True}
    chunks = list(create(client, stream=True, stream_options=options, seed=3, extra_body=tts(strategy)))
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    *said, last = chunks
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in said)
    first = said[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", "")
    kinds = [
        "reasoning" if getattr(delta, "reasoning", None) else "content"
        for chunk in said[1:-1]
        if (delta := chunk.choices[0].delta).content or getattr(delta, "reasoning", None)
    ]
    assert kinds == sorted(kinds, reverse=True)
    assert ("reasoning" in kinds) == (strategy != "single")
    assert kinds.count("content") > 5
    assert [chunk.choices[0].finish_reason for chunk in said] == [None] * (len(said) - 1) + ["stop"]
    assert words(said, "reasoning") == words(said, "reasoning_content")
    plain = create(client, seed=3, extra_body=tts(strategy))
    assert plain.choices[0].message.content == words(said)
    assert plain.usage == last.usage
    used = plain.usage
    assert (used.completion_tokens_details.reasoning_tokens > 0) == (strategy != "single")


def test_a_body_has_all_that_the_specification_requires(url: str) -> None:
    seen = httpx.post(f"{url}/v1/chat/completions", json={"model": MODEL, "messages": QUESTION}, timeout=NEVER_S).json()
    assert {"id", "object", "created", "model", "choices", "usage"} <= seen.keys()
    (choice,) = seen["choices"]
    assert choice.keys() == {"index", "message", "finish_reason", "logprobs"}
    assert (choice["logprobs"], choice["message"]["refusal"]) == (None, None)
    assert not {"reasoning", "reasoning_content", "tool_calls"} & choice["message"].keys()
    assert "error" not in seen


def test_text_parts_roles_and_thoughts_of_former_turns(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]
    turns = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
        {"role": "assistant", "content": "5", "reasoning": "or so"},
        {"role": "user", "content": parts, "name": "ann"},
    ]
    assert "You said: What is 2 + 2?" in create(client, turns).choices[0].message.content


def test_the_caller_s_request_id_comes_back(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, extra_headers={"x-request-id": "mine"}
    )
    assert raw.headers["x-request-id"] == "mine"
