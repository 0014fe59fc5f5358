"""What is refused before anything runs, with the whole error body."""

import asyncio
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, JsonValue, ValidationError
from serving import ask, serving

import strategies
from prm import FakePRM
from tts_server.config import Preset, RequestLimit, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.planning.plan import plan
from tts_server.planning.service import Service
from tts_server.schema.chat import ChatRequest
from tts_server.schema.completions import CompletionRequest
from tts_server.schema.responses import ResponsesRequest
from tts_server.schema.tokenize import TokenizeRequest

BAD, NOT = "invalid_value", "unsupported_parameter"
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


SCHEMA = "response_format.json_schema.schema"
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWERED = {"role": "tool", "content": "4", "tool_call_id": "1"}
UNFIT: dict[str, dict[str, Any]] = {
    "tools": {"tools": [tool("f")]},
    "response_format": {"response_format": {"type": "json_object"}},
    "structured_outputs": {"structured_outputs": {"choice": ["yes", "no"]}},
    "include_stop_str_in_output": {"include_stop_str_in_output": True},
    "presence_penalty": {"presence_penalty": 0.5},
    "frequency_penalty": {"frequency_penalty": 0.5},
}
REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"tts": {"strategy": "best"}}, BAD, "tts.strategy", "unknown strategy 'best'; known: "),
    (
        {"tts": {"strategy": "best_of_n", "m": 4}},
        BAD,
        "tts.m",
        "unknown option 'tts.m' of strategy 'best_of_n'; allowed: n, selector, aggregation, ",
    ),
    ({"tts": {"n": 4}}, BAD, "tts.n", "unknown option 'tts.n' of strategy 'single'; allowed: system_prompt"),
    ({"tts": {"strategy": "best_of_n", "n": "4"}}, BAD, "tts.n", "tts.n: Input should be a valid integer"),
    ({"tts": {"strategy": "best_of_n", "n": True}}, BAD, "tts.n", "tts.n: Input should be a valid integer"),
    ({"tts": {"strategy": "best_of_n", "n": 0}}, BAD, "tts.n", "tts.n: Input should be greater than or equal to 1"),
    ({"tts": {"strategy": "best_of_n", "n": 65}}, BAD, "tts.n", "tts.n is at most 64 on this server, got 65"),
    ({"tts": {"strategy": "best_of_n", "selector": "x"}}, BAD, "tts.selector", "tts.selector: Input should be 'best'"),
    ({"tts": {"strategy": 5}}, BAD, "tts.strategy", "tts.strategy: Input should be a valid string, got '5'"),
    ({"tts": "best_of_n"}, BAD, "tts", 'tts is an object such as {"strategy": "best_of_n", "n": 8}, got \'best_of_n\''),
    ({"tts": ["best_of_n"]}, BAD, "tts", 'tts is an object such as {"strategy": "best_of_n", "n": 8}'),
    ({"tts": {"budget": 5}}, BAD, "tts.budget", "tts.budget: Input should be an object, got '5'"),
    ({"response_format": "json"}, BAD, "response_format", "response_format: Input should be an object, got 'json'"),
    ({"stream_options": [True]}, BAD, "stream_options", "stream_options: Input should be an object"),
    ({"logit_bias": [1]}, BAD, "logit_bias", "logit_bias: Input should be an object"),
    (
        {"tts": {"budget": {"tokens": 4}}},
        BAD,
        "tts.budget.tokens",
        "tts.budget.tokens: unknown key tokens; allowed: max_samples, max_tokens, max_prm_tokens, deadline_s",
    ),
    ({"tts": {"budget": {"max_tokens": 0}}}, BAD, "tts.budget.max_tokens", "tts.budget.max_tokens: Input should be gr"),
    ({"tts": {"budget": {"deadline_s": "1"}}}, BAD, "tts.budget.deadline_s", "tts.budget.deadline_s: Input should be"),
    (
        {"tts": {"strategy": "best_of_n", "prm": "big"}},
        BAD,
        "tts.prm",
        "unknown reward model 'big'; known: fake",
    ),
    ({"tts": {"strategy": "single", "prm": "fake"}}, BAD, "tts.prm", "the strategy 'single' uses no reward model"),
    (
        {"model": "fake@best_of_n", "tts": {"strategy": "single"}},
        BAD,
        "tts.strategy",
        "the model 'fake@best_of_n' stands for the strategy 'best_of_n', but tts.strategy is 'single'",
    ),
    ({"tts": {"strategy": "best_of_n", "n": 2}, "n": 3}, NOT, "n", "n is at most the strategy's own n (2), got 3"),
    ({"n": 65}, BAD, "n", "n is at most 64 on this server, got 65"),
    ({"n": 129}, BAD, "n", "n: Input should be less than or equal to 128"),
    ({"n": 0}, BAD, "n", "n: Input should be greater than or equal to 1"),
    ({"messages": []}, BAD, "messages", "messages: List should have at least 1 item"),
    ({"messages": "hi"}, BAD, "messages", "messages: Input should be a list, got 'hi'"),
    ({"messages": [{"role": "bot", "content": "x"}]}, BAD, "messages[0].role", "messages[0].role: Input should be"),
    ({"messages": [{"content": "x"}]}, BAD, "messages[0].role", "messages[0].role: Field required"),
    ({"messages": [{"role": "user"}]}, BAD, "messages[0].content", "content is required in a message of role 'user'"),
    ({"messages": user(5)}, BAD, "messages[0].content", "messages[0].content: content is a string, a list of text"),
    ({"messages": user([{"type": "text"}])}, BAD, "messages[0].content[0].text", "messages[0].content[0].text: Field"),
    ({"messages": user([IMAGE])}, NOT, "messages[0].content", "content parts of type 'image_url' are not supported"),
    (
        {"messages": user([{"type": "input_audio", "input_audio": {}}])},
        NOT,
        "messages[0].content",
        "content parts of type 'input_audio' are not supported, only text",
    ),
    (
        {"messages": [*user("x"), {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        BAD,
        "messages[1].tool_calls[0].function",
        "messages[1].tool_calls[0].function: Field required",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]},
        BAD,
        "messages[0].tool_calls",
        "tool_calls is only allowed in a message of role 'assistant'",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "reasoning": "y"}]},
        BAD,
        "messages[0].reasoning",
        "reasoning is only allowed in a message of role 'assistant'",
    ),
    (
        {"messages": [*user("x"), {"role": "tool", "content": "4"}]},
        BAD,
        "messages[1].tool_call_id",
        "tool_call_id is required in a message of role 'tool'",
    ),
    ({"tools": []}, BAD, "tools", "tools: List should have at least 1 item"),
    ({"tools": [{"type": "function"}]}, BAD, "tools[0].function", "tools[0].function: Field required"),
    ({"tools": [{"type": "custom", "custom": {}}]}, NOT, "tools[0].type", "tools of type 'custom' are not supported"),
    ({"tools": [tool("a b")]}, BAD, "tools[0].function.name", "a tool's name is 1 to 64 of a-z, A-Z, 0-9"),
    ({"tools": [tool("f"), tool("f")]}, BAD, "tools", "tools holds 'f' more than once"),
    (
        {"tools": [tool("f", {"type": "thing"})]},
        BAD,
        "tools[0].function.parameters",
        "tools[0].function.parameters is no JSON schema: 'thing' is not valid",
    ),
    ({"tool_choice": "auto"}, BAD, "tool_choice", "tool_choice is only allowed with tools"),
    (
        {"tool_choice": "any", "tools": [tool("f")]},
        BAD,
        "tool_choice",
        "tool_choice: Input should be 'none', 'auto' or",
    ),
    (
        {"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [tool("f")]},
        BAD,
        "tool_choice",
        "tool_choice names no tool of tools: f",
    ),
    ({"parallel_tool_calls": "no"}, BAD, "parallel_tool_calls", "parallel_tool_calls: Input should be a valid boolean"),
    ({"functions": []}, NOT, "functions", "functions is not supported"),
    ({"function_call": "auto"}, NOT, "function_call", "function_call is not supported"),
    ({"audio": {"voice": "x"}}, NOT, "audio", "audio is not supported"),
    ({"modalities": ["text", "audio"]}, NOT, "modalities", "modalities other than text are not supported"),
    ({"prediction": {"type": "content"}}, NOT, "prediction", "prediction is not supported"),
    ({"web_search_options": {}}, NOT, "web_search_options", "web_search_options is not supported"),
    (
        {"tools": [tool("f")], "structured_outputs": {"choice": ["a"]}},
        NOT,
        "structured_outputs",
        "structured_outputs goes with tools that may be called only where it is JSON",
    ),
    (
        {"response_format": {"type": "json_object"}, "structured_outputs": {"choice": ["a"]}},
        BAD,
        "structured_outputs",
        "response_format and structured_outputs exclude each other",
    ),
    ({"structured_outputs": {}}, BAD, "structured_outputs", "structured_outputs: it holds exactly one of json, "),
    (
        {"structured_outputs": {"json": {}, "choice": ["a"]}},
        BAD,
        "structured_outputs",
        "structured_outputs: it holds exactly one of json, json_object, choice, regex, grammar, structural_tag",
    ),
    ({"structured_outputs": {"json": "[1]"}}, BAD, "structured_outputs.json", "json is a JSON object, or the text of"),
    (
        {"structured_outputs": {"json": {"type": "thing"}}},
        BAD,
        "structured_outputs.json",
        "structured_outputs.json is no JSON schema",
    ),
    (
        {"structured_outputs": {"choice": ["a"], "whitespace_pattern": "x"}},
        NOT,
        "structured_outputs.whitespace_pattern",
        "'whitespace_pattern' is not supported; allowed: json, json_object, choice, regex, grammar, structural_tag",
    ),
    ({"structured_outputs": {"regex": "[0-9]"}}, NOT, "structured_outputs", "the fake engine knows no regex"),
    ({"bad_words": ["a"]}, NOT, "bad_words", "the fake engine does not look at bad_words"),
    ({"allowed_token_ids": [1]}, NOT, "allowed_token_ids", "the fake engine does not look at allowed_token_ids"),
    (
        {"cache_salt": "s", "tts": {"strategy": "best_of_n"}},
        NOT,
        "cache_salt",
        "cache_salt goes with no reward model, and the strategy 'best_of_n' uses 'fake'",
    ),
    ({"stream_options": {"include_usage": True}}, BAD, "stream_options", "stream_options is only allowed with stream"),
    ({"top_logprobs": 2}, BAD, "top_logprobs", "top_logprobs is only allowed with logprobs: true"),
    ({"logprobs": True, "top_logprobs": 21}, BAD, "top_logprobs", "top_logprobs: Input should be less than or equal"),
    ({"stop": ["a", "b", "c", "d", "e"]}, BAD, "stop", "stop is one to four non-empty strings"),
    ({"stop": ""}, BAD, "stop", "stop is one to four non-empty strings"),
    ({"stop": 5}, BAD, "stop", "stop: Input should be a valid string, got '5'"),
    ({"stop": ["a", 5]}, BAD, "stop[1]", "stop[1]: Input should be a valid string, got '5'"),
    ({"temperature": 2.1}, BAD, "temperature", "temperature: Input should be less than or equal to 2, got '2.1'"),
    ({"temperature": "hot"}, BAD, "temperature", "temperature: Input should be a valid number, got 'hot'"),
    ({"top_p": -0.1}, BAD, "top_p", "top_p: Input should be greater than or equal to 0"),
    ({"presence_penalty": 3}, BAD, "presence_penalty", "presence_penalty: Input should be less than or equal to 2"),
    ({"frequency_penalty": -3}, BAD, "frequency_penalty", "frequency_penalty: Input should be greater than"),
    ({"seed": 2**63}, BAD, "seed", "seed: Input should be less than"),
    ({"max_tokens": 0}, BAD, "max_tokens", "max_tokens: Input should be greater than or equal to 1"),
    ({"max_completion_tokens": 1.5}, BAD, "max_completion_tokens", "max_completion_tokens: Input should be a valid"),
    ({"logit_bias": {"x": 1}}, BAD, "logit_bias", "logit_bias maps token ids to numbers from -100 to 100"),
    ({"logit_bias": {"5": 101}}, BAD, "logit_bias", "logit_bias maps token ids to numbers from -100 to 100"),
    ({"logit_bias": {"9" * 5000: 1}}, BAD, "logit_bias", "logit_bias maps token ids to numbers from -100 to 100"),
    ({"reasoning_effort": "max"}, BAD, "reasoning_effort", "reasoning_effort: Input should be 'none', 'minimal'"),
    (
        {"response_format": {"type": "json_schema"}},
        BAD,
        "response_format.json_schema",
        "json_schema is required with type 'json_schema'",
    ),
    ({"response_format": {"type": "xml"}}, BAD, "response_format.type", "response_format.type: Input should be 'text'"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        BAD,
        "response_format.json_schema.schema",
        "response_format.json_schema.schema: Field required",
    ),
    (schema({"type": "thing"}), BAD, SCHEMA, f"{SCHEMA} is no JSON schema: 'thing' is not valid"),
    (schema({"$ref": "#"}), BAD, SCHEMA, f"{SCHEMA} holds references without an end"),
    (schema({"$ref": "#/$defs/x"}), BAD, SCHEMA, f"{SCHEMA} holds the reference '#/$defs/x', which leads nowhere"),
    (schema({"$ref": "http://127.0.0.1/x"}), BAD, SCHEMA, f"{SCHEMA} holds the reference 'http://127.0.0.1/x', which"),
    ({"max_tokens": 3, "min_tokens": 4}, BAD, "min_tokens", "min_tokens is at most the limit of 3 tokens, got 4"),
    *[
        ({"tts": {"strategy": name}} | fields, NOT, param, f"the strategy '{name}' ")
        for name in ("beam_search", "tree_of_thoughts")
        for param, fields in UNFIT.items()
    ],
    ({"tts": {"strategy": "graph_of_thoughts"}, "min_tokens": 2}, NOT, "min_tokens", "draws its answer in parts"),
    (
        {"tts": {"strategy": "self_refine"}, "response_format": {"type": "json_object"}},
        NOT,
        "response_format",
        "these can: best_of_n, compute_optimal, confidence, self_consistency, single",
    ),
    (
        {"add_generation_prompt": True, "continue_final_message": True},
        BAD,
        "continue_final_message",
        "add_generation_prompt and continue_final_message exclude each other",
    ),
    (
        {"messages": user("word " * 600)},
        "context_length_exceeded",
        "messages",
        "This model's maximum context length is 512 tokens. However, your messages resulted in ",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
def test_every_refusal_names_its_field(stream: bool) -> None:
    engine = FakeEngine(max_model_len=512)
    settings = Settings(max_request=RequestLimit(max_samples=64))

    async def main() -> None:
        async with serving(engine, [FakePRM()], settings) as client:
            for fields, code, param, said in REFUSED:
                if stream and "stream_options" in fields:
                    continue
                response = await ask(client, **fields, stream=stream)
                assert response.headers["content-type"] == "application/json"
                seen = response.json()
                assert seen.keys() == {"error"}, fields
                assert seen["error"].keys() == {"message", "type", "param", "code"}, fields
                assert said in seen["error"].pop("message"), fields
                assert seen["error"] == {"type": "invalid_request_error", "param": param, "code": code}, fields
                assert response.status_code == 400, fields

    asyncio.run(main())
    assert (engine.generated, engine.live) == (0, 0)


def test_an_unknown_model_is_a_404_that_lists_the_known() -> None:
    async def main() -> None:
        async with serving() as client:
            for model in ("gpt", "fake@nothing", "fake@", "FAKE", ""):
                response = await ask(client, model=model)
                assert response.status_code == 404
                error = response.json()["error"]
                assert error["message"].startswith(f"The model '{model}' does not exist. Known: fake, fake@ab_mcts, ")
                assert (error["type"], error["param"], error["code"]) == (
                    "invalid_request_error",
                    "model",
                    "model_not_found",
                )

    asyncio.run(main())


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"model": LONG},
        {"tts": {"strategy": LONG}},
        {"tts": {LONG: 1}},
        {"tts": {"strategy": "best_of_n", "n": LONG}},
        {"tts": {"strategy": "best_of_n", "prm": LONG}},
        {"tts": {"budget": {LONG: 1}}},
        {"messages": [{"role": LONG, "content": "x"}]},
        {"messages": user([{"type": LONG}])},
        {"temperature": LONG},
        {"logit_bias": {LONG: 1}},
        {"stop": [LONG, 5]},
        {"response_format": {"type": LONG}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_long_input_does_not_come_back(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            response = await ask(client, **fields)
            assert response.status_code in (400, 404)
            assert len(response.content) < 1000

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields",
    [
        {field: None}
        for field, info in ChatRequest.model_fields.items()
        if not info.is_required() and info.default is None
    ]
    + [
        {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "safety_identifier": "x"},
        {"prompt_cache_key": "x", "verbosity": "low", "thinking": {"type": "enabled"}, "anything": [1, None]},
        {"temperature": 0, "top_p": 1, "response_format": {"type": "text"}, "modalities": ["text"]},
        {"messages": user([{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}])},
        {"messages": [{"role": "developer", "content": "Be brief."}, *user("x"), {"role": "assistant"}, *user("y")]},
        {"messages": [*user("x"), {"role": "assistant", "content": "y", "reasoning_content": "z"}, *user("y")]},
        {"messages": [*user("x"), {"role": "assistant", "tool_calls": [CALL]}, ANSWERED]},
        {"tools": [tool("f")], "tool_choice": "none", "response_format": {"type": "json_object"}},
        {"tools": [tool("f")], "response_format": {"type": "json_object"}},
        {"tools": [tool("f")], "tool_choice": "required", "parallel_tool_calls": True},
        {"top_p": 0, "min_p": 0.1, "top_k": 5, "repetition_penalty": 1.1, "logit_bias": {"353": 1}},
        {"tts": {"strategy": "best_of_n"}, "presence_penalty": 1, "frequency_penalty": 1, "min_tokens": 3},
        {"tts": {"strategy": "tree_of_thoughts"}, "presence_penalty": 0, "frequency_penalty": 0, "min_tokens": 0},
    ],
    ids=str,
)
def test_accepted(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            response = await ask(client, **fields)
            assert response.status_code == 200, response.text

    asyncio.run(main())


@pytest.mark.parametrize("name", ["tools", "messages", "add_generation_prompt", "continue_final_message"])
def test_a_template_variable_with_a_field_of_its_own_is_refused(name: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {name: True}}
    with pytest.raises(ValidationError, match=f"chat_template_kwargs cannot set {name}"):
        ChatRequest.model_validate(body)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, and those that their fields name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for inner in get_args(annotation):
        yield from models_in(inner)


@pytest.mark.parametrize("request_type", [ChatRequest, CompletionRequest, ResponsesRequest, TokenizeRequest])
def test_null_is_not_given_in_every_optional_key_of_a_request(request_type: type[BaseModel]) -> None:
    for model in models_in(request_type):
        for name, field in model.model_fields.items():
            if not field.is_required():
                assert type(None) in get_args(field.annotation) or field.annotation is JsonValue, (model, name)


NULLS: list[dict[str, Any]] = [
    {"budget": None},
    {"budget": dict.fromkeys(("max_samples", "max_tokens", "max_prm_tokens", "deadline_s"))},
    {"return_candidates": None},
    {"strategy": None, "prm": None},
    *[
        {"strategy": entry.name, **dict.fromkeys(entry.options.model_fields)}
        for entry in strategies.registry().values()
    ],
    {"strategy": "graph_of_thoughts", "graph": [{"op": "generate", "k": None}, {"op": "score", "samples": None}]},
]


@pytest.mark.parametrize("tts", NULLS, ids=str)
def test_null_is_not_given_in_every_key_of_tts(tts: dict[str, Any]) -> None:
    service = Service(FakeEngine(), {"fake": FakePRM()}, Settings(), 0)
    body = {"model": "fake", "messages": user("Hi")}
    default = {"tts": {"strategy": tts["strategy"]}} if tts.get("strategy") and "graph" not in tts else {}
    planned = plan(ChatRequest.model_validate(body | {"tts": tts}), service)
    if default:
        takes_null = {
            name: None
            for name, field in strategies.get(tts["strategy"]).options.model_fields.items()
            if type(None) in get_args(field.annotation)
        }
        assert planned.options == {**plan(ChatRequest.model_validate(body | default), service).options, **takes_null}


def test_null_leaves_a_presets_option_as_it_is() -> None:
    settings = Settings(presets={"many": Preset(strategy="best_of_n", n=7)})  # type: ignore[call-arg]
    service = Service(FakeEngine(), {}, settings, 0)
    body = {"model": "fake@many", "messages": user("Hi"), "tts": {"n": None, "budget": None}}
    assert plan(ChatRequest.model_validate(body), service).options["n"] == 7
