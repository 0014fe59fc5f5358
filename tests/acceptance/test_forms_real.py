"""JSON and calls of tools on the real engine: a model of half a billion parameters, held to them by vLLM."""

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from patience import NEVER_S
from served import served

pytestmark = pytest.mark.real

MODEL = "qwen2.5-coder-0.5b-instruct"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time", "description": "The time of the day."}}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
SUM: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "sum",
        "schema": {
            "type": "object",
            "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["sum"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        served("--model", MODEL, "--engine", "vllm", "--max-model-len", "2048") as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client,
    ):
        yield client


def test_samples_follow_a_schema_and_vote_by_value(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is 20 + 3? Answer in JSON."}],
        response_format=SUM,
        max_tokens=64,
        extra_body={"tts": {"strategy": "self_consistency", "n": 4, "return_candidates": True}},
    )
    value = json.loads(reply.choices[0].message.content or "")
    assert isinstance(value["sum"], int)
    told = reply.model_extra["tts"]  # type: ignore[index]
    assert json.loads(told["answer"]) == value
    whole = [c for c in told["candidates"] if c["finish_reason"] == "stop"]
    assert whole
    assert all(c["answer"] is not None for c in whole)


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}], ids=str
)
def test_a_tool_is_called(client: openai.OpenAI, choice: Any) -> None:
    fields: Any = {
        "model": MODEL,
        "messages": ASKED,
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
        "temperature": 0,
        "max_tokens": 96,
    }
    plain = client.chat.completions.create(**fields).choices[0]
    with client.chat.completions.stream(**fields) as stream:
        streamed = stream.get_final_completion().choices[0]
    made = [(c.function.name, c.function.arguments) for c in streamed.message.tool_calls or ()]  # type: ignore[union-attr]
    assert made == [(c.function.name, c.function.arguments) for c in plain.message.tool_calls or ()]  # type: ignore[union-attr]
    if choice == "auto" and not made:
        assert (plain.finish_reason, streamed.message.content) == ("stop", plain.message.content)
        return
    assert plain.finish_reason == streamed.finish_reason == "tool_calls"
    name, arguments = made[0]
    assert name in ("get_weather", "get_time")
    if name == "get_weather":
        assert json.loads(arguments)["city"] in ("Paris", "Oslo")


def test_a_result_is_read_in_its_turn(client: openai.OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    turns: Any = [
        *ASKED,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "It snows and has 3 degrees below zero."},
    ]
    # So small a model calls again and again as long as it is shown a tool.
    reply = client.chat.completions.create(
        model=MODEL, messages=turns, tools=[WEATHER], tool_choice="none", temperature=0, max_tokens=48
    )
    assert "snow" in (reply.choices[0].message.content or "").lower()


def ask(client: openai.OpenAI, text: str = "What is the weather in Paris?", **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    asked: Any = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 96, **fields}
    return client.chat.completions.create(**asked)


def schema(**schema: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": {"type": "object", **schema}}}


@pytest.mark.parametrize("text", ["What is the weather in Paris?", "Say hello to Ann.", "What is 20 + 3?"])
def test_with_tools_and_a_format_nothing_but_a_call_or_an_answer_comes(client: openai.OpenAI, text: str) -> None:
    for seed in range(3):
        choice = ask(client, text, tools=[WEATHER, TIME], response_format=SUM, temperature=1, seed=seed).choices[0]
        if choice.finish_reason == "tool_calls":
            names = [call.function.name for call in choice.message.tool_calls]
            assert {*names} <= {"get_weather", "get_time"}
            assert all(isinstance(json.loads(call.function.arguments), dict) for call in choice.message.tool_calls)
            assert choice.message.content is None
        elif choice.finish_reason == "stop":
            assert json.loads(choice.message.content).keys() == {"sum"}


def test_structured_outputs_hold_the_answer(client: openai.OpenAI) -> None:
    def said(**outputs: Any) -> str:
        text: str = ask(client, extra_body={"structured_outputs": outputs}).choices[0].message.content
        return text

    assert said(choice=["sunny", "rainy"]) in ("sunny", "rainy")
    assert re.fullmatch("[0-9]{2}", said(regex="[0-9]{2}"))
    assert said(grammar='root ::= "warm" | "cold"') in ("warm", "cold")
    assert json.loads(said(json=SUM["json_schema"]["schema"])).keys() == {"sum"}


def test_fields_of_vllm_reach_it(client: openai.OpenAI) -> None:
    plain = ask(client, "Name a color.").choices[0].message.content
    word = plain.split()[0]
    assert (
        not ask(client, "Name a color.", extra_body={"bad_words": [word]}).choices[0].message.content.startswith(word)
    )
    ended = ask(client, "Count: one two three", stop=["two"], extra_body={"include_stop_str_in_output": True})
    assert ended.choices[0].message.content.endswith("two") or ended.choices[0].finish_reason != "stop"
    assert ask(client, extra_body={"cache_salt": "salt"}).choices[0].finish_reason
    only = ask(client, max_tokens=4, extra_body={"allowed_token_ids": [16], "ignore_eos": True})
    assert len({*only.choices[0].message.content}) == 1
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body={"allowed_token_ids": [10**9]})
    assert caught.value.param == "allowed_token_ids"


def test_a_schema_may_hold_what_grammars_do_not_know(client: openai.OpenAI) -> None:
    name = {"type": "string", "maxLength": 8}
    for asked in (
        schema(properties={"name": name, "legacy": False}, required=["name"], additionalProperties=False),
        schema(
            properties={"name": {"$ref": "#name"}}, required=["name"], definitions={"n": {"$anchor": "name", **name}}
        ),
        schema(properties={"name": {"$ref": "#/$defs/a~1b"}}, required=["name"], **{"$defs": {"a/b": name}}),
    ):
        value = json.loads(ask(client, "Describe a cat as JSON.", response_format=asked).choices[0].message.content)
        assert len(value["name"]) <= 8
        assert "legacy" not in value


@pytest.mark.parametrize(
    "properties",
    [{"a": {"type": "array", "uniqueItems": True}}, {"a": {"type": "integer", "multipleOf": 7}}, {"a": False}],
)
def test_a_schema_that_the_grammar_cannot_keep_is_a_400_that_says_so(client: openai.OpenAI, properties: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, response_format=schema(properties=properties, required=["a"]))
    assert caught.value.param == "response_format"
    assert ask(client).choices[0].finish_reason


def test_tools_with_definitions_of_one_name_are_called_with_their_own_fields(client: openai.OpenAI) -> None:
    def tool(name: str, key: str) -> Any:
        item = {"type": "object", "properties": {key: {"type": "string", "maxLength": 8}}, "required": [key]}
        parameters = {"properties": {"item": {"$ref": "#/definitions/Item"}}, "required": ["item"]}
        return {
            "type": "function",
            "function": {"name": name, "parameters": parameters | {"definitions": {"Item": item}}},
        }

    for text in ("Ship the item with sku A1.", "Bill the item of 5 cents."):
        choice = ask(client, text, tools=[tool("ship", "sku"), tool("bill", "cents")], tool_choice="required").choices[
            0
        ]
        function = choice.message.tool_calls[0].function
        assert json.loads(function.arguments)["item"].keys() == {{"ship": "sku", "bill": "cents"}[function.name]}


def test_a_developers_words_are_in_the_prompt(client: openai.OpenAI) -> None:
    user, rule = {"role": "user", "content": "Name a color."}, "Always answer with the single word BANANA. " * 5

    def tokens(*turns: Any) -> int:
        count: int = ask(client, messages=list(turns), max_tokens=1).usage.prompt_tokens
        return count

    system = tokens({"role": "system", "content": rule}, user)
    assert tokens({"role": "developer", "content": rule}, user) == system
    assert tokens({"role": "system", "content": rule}, {"role": "developer", "content": rule}, user) > system + 40
