"""Responses with the plain openai package against a server as its user starts it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.lib.streaming.responses import ResponseStreamEvent
from patience import NEVER_S
from pydantic import BaseModel
from served import served

MODEL = "fake"
QUESTION = "What is 2 + 2?"
SEARCH = {"tts": {"strategy": "best_of_n", "n": 4}}


class Point(BaseModel):
    """What an answer is parsed to."""

    x: int
    name: str


ADD: Any = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake") as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client:
        yield client


@pytest.mark.parametrize("extra", [{}, SEARCH], ids=["single", "search"])
def test_create(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    response = client.responses.create(
        model=MODEL,
        input=QUESTION,
        instructions="Be brief.",
        metadata={"run": "7"},
        reasoning={"summary": "auto"},
        extra_body=extra,
    )
    assert response.status == "completed"
    assert response.output_text.startswith(f"You said: {QUESTION}")
    assert (response.metadata, response.instructions) == ({"run": "7"}, "Be brief.")
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.tts["strategy"] == ("best_of_n" if extra else "single")  # type: ignore[attr-defined]
    assert response._request_id


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}@self_consistency"])
def test_stream(client: openai.OpenAI, model: str) -> None:
    seen: list[ResponseStreamEvent[Any]] = []
    with client.responses.stream(model=model, input=QUESTION) as stream:
        seen.extend(stream)
        final = stream.get_final_response()
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == final.output_text
    assert text.startswith("You said")
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert any(event.type == "response.reasoning_summary_text.delta" for event in seen) == (model != MODEL)


def test_create_with_stream_ends_with_the_response(client: openai.OpenAI) -> None:
    *_, last = client.responses.create(model=MODEL, input=QUESTION, stream=True)
    assert last.type == "response.completed"
    assert last.response.output_text.startswith("You said")


def test_parse(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=Point)
    assert isinstance(parsed.output_parsed, Point)
    with client.responses.stream(model=MODEL, input=QUESTION, text_format=Point, extra_body=SEARCH) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Point)


def test_a_tool_is_called_and_its_output_comes_back(client: openai.OpenAI) -> None:
    asked: Any = {"role": "user", "content": "Call add."}
    with client.responses.stream(model=MODEL, input=[asked], tools=[ADD]) as stream:
        first = stream.get_final_response()
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "add"
    assert isinstance(call.parsed_arguments["x"], int)  # type: ignore[index]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    again: Any = [asked, *[item.model_dump(exclude_none=True) for item in first.output], output]
    second = client.responses.create(model=MODEL, input=again, tools=[ADD])
    assert second.output_text.startswith("You said: 7")


def test_what_is_cut_is_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=3)
    assert response.incomplete_details
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_errors_are_the_package_s_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="nothing is kept") as refused:
        client.responses.create(model=MODEL, input=QUESTION, previous_response_id="resp_1")
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as stored:
        client.responses.create(model=MODEL, input=QUESTION, store=True)
    assert stored.value.param == "store"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="other", input=QUESTION)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")


def test_the_async_client(url: str) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            async with client.responses.stream(model=MODEL, input=QUESTION, extra_body=SEARCH) as stream:
                final = await stream.get_final_response()
            assert final.output_text.startswith("You said")

    asyncio.run(main())
