"""JSON and calls of tools on the real engine: a model of half a billion parameters, held to them by vLLM."""

import json
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
