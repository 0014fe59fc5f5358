"""`POST /v1/responses` as clients see it: bodies, typed events and their order, and that both tell the same."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from serving import serving, until

from prm import FakePRM
from tts_server.answer import respond as lifetime
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest
from tts_server.errors import UpstreamError

Json = dict[str, Any]

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SEARCH = {"tts": {"strategy": "best_of_n", "n": 4}}
INTEGER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
FORMAT = {"text": {"format": {"type": "json_schema", "name": "point", "schema": INTEGER, "strict": True}}}
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'
THOUGHT = "<think>\nFirst this.\n</think>\n\nThen that."


def tool(name: str) -> Json:
    return {"type": "function", "name": name, "parameters": INTEGER, "strict": True, "description": f"It {name}s."}


TOOLS = {"tools": [tool("add"), tool("find")]}


def saying(*texts: str) -> FakeEngine:
    """An engine whose sample number i says the text number i."""
    return FakeEngine(lambda request: texts[request.index % len(texts)])


async def post(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/responses", json={"model": "fake", "input": "What is 2 + 2?"} | fields)


async def events(client: httpx.AsyncClient, **fields: Any) -> list[Json]:
    """A stream's events: each as OpenAI types it, named by its type and numbered."""
    response = await post(client, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    told = []
    for number, event in enumerate(response.text.removesuffix("\n\n").split("\n\n")):
        name, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
        assert told[-1]["sequence_number"] == number
        EVENT.validate_python(told[-1])
    return told


async def both(engine: FakeEngine, **fields: Any) -> tuple[Json, list[Json]]:
    """The same request's body and events, which tell the same."""
    async with serving(engine, [FakePRM()]) as client:
        response = await post(client, seed=1, **fields)
        assert response.status_code == 200, response.text
        plain, told = response.json(), await events(client, seed=1, **fields)
    Response.model_validate(plain)
    assert [e["type"] for e in told[:2]] == ["response.created", "response.in_progress"]
    whole = told[-1]["response"]
    assert told[-1]["type"] == f"response.{whole['status']}"
    assert lasting(whole) == lasting(plain)
    done = {e["output_index"]: e["item"] for e in told if e["type"] == "response.output_item.done"}
    assert [done[i] for i in range(len(done))] == whole["output"]
    for index, item in done.items():
        assert grown(told, index) == content_of(item)
    return plain, told


def lasting(response: Json) -> Json:
    """What two answers to one request have in common."""
    output = [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]
    tts = {k: v for k, v in response["tts"].items() if k not in ("trace_id", "usage")}
    changing = ("id", "created_at", "completed_at")
    return {k: v for k, v in response.items() if k not in changing} | {"output": output, "tts": tts}


def grown(told: list[Json], index: int) -> Json:
    """What an item's deltas add up to."""
    texts: Json = {}
    for event in told:
        if event.get("output_index") == index and event["type"].endswith(".delta"):
            kind = event["type"].split(".")[1]
            texts[kind] = texts.get(kind, "") + event["delta"]
    return texts


def content_of(item: Json) -> Json:
    """The same of an item that is done."""
    if item["type"] == "function_call":
        return {"function_call_arguments": item["arguments"]}
    kinds = {"output_text": "output_text", "summary_text": "reasoning_summary_text", "reasoning_text": "reasoning_text"}
    parts = [*item.get("summary", ()), *item["content"]]
    return {kinds[part["type"]]: part["text"] for part in parts if part["text"]}


def text_of(response: Json) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"])


def calls_of(response: Json) -> list[tuple[str, str]]:
    return [(item["name"], item["arguments"]) for item in response["output"] if item["type"] == "function_call"]


def kinds(told: list[Json]) -> list[str]:
    """The types of events, each once in a row."""
    names = [event["type"].removeprefix("response.") for event in told]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_a_body_says_what_it_answers_and_what_it_cost() -> None:
    async def main() -> None:
        plain, told = await both(FakeEngine(), metadata={"a": "b"}, instructions="Be brief.", user="me", temperature=1)
        assert plain["id"].startswith("resp_")
        assert (plain["object"], plain["status"], plain["error"]) == ("response", "completed", None)
        assert (plain["store"], plain["previous_response_id"], plain["truncation"]) == (False, None, "disabled")
        assert (plain["metadata"], plain["instructions"], plain["user"]) == ({"a": "b"}, "Be brief.", "me")
        assert (plain["temperature"], plain["top_p"]) == (1, None)
        (message,) = plain["output"]
        assert message["role"] == "assistant"
        assert text_of(plain).startswith("You said: What is 2 + 2?")
        used = plain["usage"]
        assert used["input_tokens"] > 0
        assert used["output_tokens"] == plain["tts"]["usage"]["completion_tokens"]
        assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]
        assert used["output_tokens_details"] == {"reasoning_tokens": 0}
        assert kinds(told) == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert len([e for e in told if e["type"] == "response.output_text.delta"]) > 10

    asyncio.run(main())


def test_a_search_tells_its_progress_as_summary_before_the_answer() -> None:
    async def main() -> None:
        plain, told = await both(saying("\\boxed{1}", "\\boxed{2}"), **SEARCH)
        assert [item["type"] for item in plain["output"]] == ["reasoning", "message"]
        (summary,) = plain["output"][0]["summary"]
        assert summary["text"].count("\n") >= 5
        assert plain["output"][0]["content"] == []
        assert plain["tts"]["samples"] == 4
        assert plain["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        assert kinds(told)[2:8] == [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
        ]

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_a_thought_is_reasoning_and_no_answer(fields: Json) -> None:
    async def main() -> None:
        plain, told = await both(saying(THOUGHT), **fields)
        reasoning, message = plain["output"]
        assert reasoning["content"] == [{"type": "reasoning_text", "text": "First this."}]
        assert "encrypted_content" not in reasoning
        assert message["content"][0]["text"] == "Then that."
        assert plain["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        assert "reasoning_text.done" in kinds(told)

    asyncio.run(main())


def test_a_call_is_an_item_of_its_own_behind_what_was_said() -> None:
    async def main() -> None:
        plain, told = await both(saying(f"I add.\n{CALL}\n{CALL}"), **TOOLS)
        assert [item["type"] for item in plain["output"]] == ["message", "function_call", "function_call"]
        assert calls_of(plain) == [("add", '{"x": 1}')] * 2
        _, one, two = plain["output"]
        assert one["call_id"] != two["call_id"]
        assert one["id"].startswith("fc_")
        assert one["call_id"].startswith("call_")
        assert text_of(plain) == "I add."
        assert plain["tools"] == TOOLS["tools"]
        done = [e for e in told if e["type"] == "response.function_call_arguments.done"]
        assert [(e["name"], e["arguments"]) for e in done] == calls_of(told[-1]["response"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("choice", "shown", "called"),
    [
        ("auto", ["add", "find"], ["find"]),
        ("required", ["add", "find"], ["add"]),
        ({"type": "function", "name": "find"}, ["add", "find"], ["find"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "find"}]},
            ["find"],
            ["find"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]},
            ["add"],
            ["add"],
        ),
        ("none", [], []),
    ],
    ids=str,
)
def test_a_tool_is_called_as_the_choice_has_it(choice: Any, shown: list[str], called: list[str]) -> None:
    seen: list[list[str]] = []

    def script(request: FakeRequest) -> str:
        seen.append([tool["function"]["name"] for tool in request.tools])
        if form := request.sampling.structured:
            named = isinstance(choice, dict) and choice["type"] == "function"
            assert form["type"] == "json_schema"
            return '{"x": 1}' if named else '[{"name": "add", "parameters": {"x": 1}}]'
        return CALL.replace("add", "find")

    async def main() -> None:
        plain, _ = await both(FakeEngine(script), **TOOLS, tool_choice=choice)
        assert [name for name, _ in calls_of(plain)] == called
        assert plain["tool_choice"] == choice
        assert seen == [shown, shown]

    asyncio.run(main())


def test_no_tools_is_no_tools_and_one_call_at_a_time_is_one() -> None:
    async def main() -> None:
        async with serving(saying(CALL + CALL)) as client:
            for choice in (None, "auto", "none"):
                plain = (await post(client, tools=[], tool_choice=choice)).json()
                assert text_of(plain) == CALL + CALL
            plain = (await post(client, **TOOLS, parallel_tool_calls=False)).json()
            assert len(calls_of(plain)) == 1
            assert plain["parallel_tool_calls"] is False

    asyncio.run(main())


def test_calls_that_do_not_parse_lose_their_vote() -> None:
    async def main() -> None:
        engine = saying(CALL.replace("1}", ""), CALL)
        plain, _ = await both(engine, **TOOLS, tts={"strategy": "self_consistency", "n": 4})
        assert calls_of(plain) == [("add", '{"x": 1}')]

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_the_text_keeps_to_its_format(fields: Json) -> None:
    async def main() -> None:
        plain, _ = await both(FakeEngine(), **FORMAT, **fields)
        assert json.loads(text_of(plain)).keys() == {"x"}
        assert plain["text"] == FORMAT["text"]
        plain, _ = await both(FakeEngine(), text={"format": {"type": "json_object"}, "verbosity": "low"}, **fields)
        assert isinstance(json.loads(text_of(plain)), dict)
        plain, _ = await both(FakeEngine(), text={"format": {"type": "text"}}, **fields)
        assert text_of(plain).startswith("You said")

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_an_answer_that_was_cut_is_incomplete(fields: Json) -> None:
    async def main() -> None:
        plain, told = await both(FakeEngine(), max_output_tokens=2, **fields)
        assert (plain["status"], plain["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (plain["completed_at"], plain["max_output_tokens"]) == (None, 2)
        assert plain["output"][-1]["status"] == "incomplete"
        plain, _ = await both(saying(THOUGHT), max_output_tokens=6, **fields)
        assert [item["status"] for item in plain["output"]] == ["incomplete"]
        assert told[-1]["type"] == "response.incomplete"

    asyncio.run(main())


def test_an_answer_without_a_word_is_an_empty_message() -> None:
    async def main() -> None:
        plain, _ = await both(saying(""))
        assert [item["type"] for item in plain["output"]] == ["message"]
        assert (plain["status"], text_of(plain)) == ("completed", "")

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
def test_logprobs_are_told_where_they_are_included(fields: Json) -> None:
    def rivals(request: FakeRequest) -> FakeReply:
        return FakeReply("Yes", {"Yes": 0.75, "No": 0.25})

    async def main() -> None:
        asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, **fields}
        plain, told = await both(FakeEngine(rivals), **asked)
        (token,) = plain["output"][-1]["content"][0]["logprobs"]
        assert (token["token"], token["bytes"]) == ("Yes", list(b"Yes"))
        assert token["logprob"] == pytest.approx(-0.2877, abs=1e-4)
        assert [rival["token"] for rival in token["top_logprobs"]] == ["Yes", "No"]
        streamed = [p for e in told if e["type"] == "response.output_text.delta" for p in e["logprobs"]]
        assert streamed == [token]
        plain, _ = await both(FakeEngine(rivals), **fields)
        assert plain["output"][-1]["content"][0]["logprobs"] == []

    asyncio.run(main())


def test_what_came_back_can_be_sent_again_as_it_is() -> None:
    seen: list[Any] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.messages)
        return f"<think>Sum it.</think>On it.{CALL}" if len(seen) < 2 else "It is 4."

    async def main() -> None:
        async with serving(FakeEngine(script)) as client:
            first = (await post(client, **TOOLS, instructions="Use tools.", seed=1)).json()
            (call,) = [item for item in first["output"] if item["type"] == "function_call"]
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "4"}
            asked = {"role": "user", "content": "What is 2 + 2?"}
            given = [asked, *first["output"], output]
            second = (await post(client, **TOOLS, input=given, instructions="Use tools.")).json()
            assert text_of(second) == "It is 4."
        system, user, assistant, result = seen[1]
        assert (system["role"], system["content"]) == ("system", "Use tools.")
        assert (user["role"], user["content"]) == ("user", "What is 2 + 2?")
        assert (assistant["content"], assistant["reasoning"]) == ("On it.", "Sum it.")
        (told,) = assistant["tool_calls"]
        assert told["id"] == call["call_id"]
        assert told["function"] == {"name": "add", "arguments": '{"x": 1}'}
        assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", call["call_id"], "4")

    asyncio.run(main())


def test_a_thought_comes_back_from_its_unread_form() -> None:
    seen: list[Any] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.messages)
        return THOUGHT

    async def main() -> None:
        plain, _ = await both(FakeEngine(script), include=["reasoning.encrypted_content"])
        reasoning, message = plain["output"]
        kept = {"type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"]}
        async with serving(FakeEngine(script)) as client:
            await post(client, input=[kept, message, {"role": "user", "content": "And?"}])
            assert seen[-1][0]["reasoning"] == "First this."
            refused = await post(client, input=[kept | {"encrypted_content": "gAAAAA=="}])
            assert refused.json()["error"]["param"] == "input[0].encrypted_content"

    asyncio.run(main())


def test_every_way_to_sample_reaches_the_engine() -> None:
    asked: Json = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 99,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 3,
        "logit_bias": {"353": -1},
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "stop_token_ids": [1],
    }
    seen: list[Any] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.sampling)
        return "x"

    async def main() -> None:
        async with serving(FakeEngine(script)) as client:
            assert (await post(client, **asked, stop="a", ignore_eos=False)).status_code == 200
        (sampling,) = seen
        for name, value in asked.items():
            field = {"max_output_tokens": "max_tokens"}.get(name, name)
            wanted = {"logit_bias": {353: -1}, "stop_token_ids": (1,)}.get(name, value)
            assert getattr(sampling, field) == wanted, name
        assert sampling.stop == ("a",)

    asyncio.run(main())


def test_a_strategy_is_named_by_the_body_the_model_or_the_effort() -> None:
    async def main() -> None:
        settings = Settings(max_request={"max_samples": 8})  # type: ignore[arg-type]
        async with serving(prms=[FakePRM()], settings=settings) as client:
            for fields, strategy, samples in (
                ({}, "single", 1),
                ({"tts": {"strategy": "best_of_n", "n": 3}}, "best_of_n", 3),
                ({"model": "fake@self_consistency", "tts": {"n": 2}}, "self_consistency", 2),
                ({"reasoning": {"effort": "low", "summary": "auto"}}, "compute_optimal", 8),
                ({"reasoning": {"effort": "none"}}, "single", 1),
                ({"reasoning": None}, "single", 1),
            ):
                plain = (await post(client, **fields)).json()
                assert (plain["tts"]["strategy"], plain["tts"]["samples"]) == (strategy, samples), fields
                assert plain["model"] == fields.get("model", "fake")  # type: ignore[attr-defined]
            asked = {"tts": {"strategy": "best_of_n", "n": 2, "return_candidates": True}}
            assert len((await post(client, **asked)).json()["tts"]["candidates"]) == 2

    asyncio.run(main())


USER = {"role": "user", "content": "x"}
CALLED = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}


REFUSED: list[tuple[Json, str]] = [
    ({"store": True}, "store"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"truncation": "auto"}, "truncation"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"messages": [USER]}, "messages"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
    ({"n": 2}, "n"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream": False, "stream_options": {}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"reasoning": {"effort": "max"}}, "reasoning.effort"),
    ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
    ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": 4, "min_tokens": 5}, "min_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a": "b" * 513}}, "metadata.a"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 1}}}}, "text.format.schema"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({**FORMAT, "structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"beam_width": 4}, "beam_width"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [{**tool("add"), "parameters": {"type": 1}}]}, "tools[0].parameters"),
    ({"tools": [{**tool("add"), "defer_loading": True}]}, "tools[0].defer_loading"),
    ({"tools": [tool("add"), tool("add")]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({**TOOLS, "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({**TOOLS, "tool_choice": {"type": "function", "name": "lose"}}, "tool_choice"),
    ({**TOOLS, "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
    ({**TOOLS, "tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({**TOOLS, "tool_choice": "any"}, "tool_choice"),
    ({**TOOLS, "tts": {"strategy": "beam_search"}}, "tools"),
    ({"tts": {"strategy": "best_of_n", "m": 2}}, "tts.m"),
    ({"input": []}, "input"),
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["x"]}, "input[0]"),
    ({"input": [{"type": {}}]}, "input[0].type"),
    ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": [USER, {"role": "tool", "content": "x"}]}, "input[1].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
    ({"input": [USER, {"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[1].call_id"),
    ({"input": [CALLED, {"type": "function_call_output", "call_id": "c"}]}, "input[1].output"),
    ({"input": [CALLED] * 129}, "input"),
    ({"input": "x" * 200_000}, "input"),
]


def test_what_cannot_be_honoured_is_refused_by_name() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            for i, (fields, param) in enumerate(REFUSED):
                # A stream is refused before it begins.
                response = await post(client, **{"stream": i % 2 == 0, **fields})
                assert response.status_code == 400, (fields, response.text)
                error = response.json()["error"]
                assert (error["param"], error["type"]) == (param, "invalid_request_error"), error
                assert param.split("[")[0] in error["message"] or error["code"] == "context_length_exceeded"

    asyncio.run(main())


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {
        "store": False,
        "background": False,
        "truncation": "disabled",
        "previous_response_id": None,
        "service_tier": "auto",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "max_tool_calls": 3,
        "include": [],
        "tools": [],
        "text": {},
        "reasoning": {"effort": None},
        "client_metadata": {"a": 1},
    }

    async def main() -> None:
        async with serving() as client:
            response = await post(client, **nothing)
            assert response.status_code == 200, response.text
            assert (response.json()["prompt_cache_key"], response.json()["safety_identifier"]) == ("k", "s")

    asyncio.run(main())


def breaking(request: FakeRequest) -> str:
    raise UpstreamError("The upstream is gone.")


def test_an_error_before_the_first_event_is_a_status_also_of_a_stream() -> None:
    async def main() -> None:
        async with serving(FakeEngine(breaking)) as client:
            for stream in (False, True):
                response = await post(client, stream=stream)
                assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")

    asyncio.run(main())


class Breaking(FakeEngine):
    """Fails when it has said a few words."""

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        chunks = super().generate(*args, **kwargs)
        for _ in range(3):
            yield await anext(chunks)
        await chunks.aclose()
        raise UpstreamError("The upstream is gone.")


def test_an_error_within_a_stream_is_told_and_the_response_has_failed() -> None:
    async def main() -> None:
        async with serving(Breaking()) as client:
            *said, error, failed = await events(client)
            assert [e["type"] for e in said].count("response.output_text.delta") == 3
            told = {"code": "upstream_error", "message": "The upstream is gone.", "param": None}
            assert {key: error[key] for key in told} == told
            assert error["error"] == told | {"type": "server_error"}
            response = failed["response"]
            assert (failed["type"], response["status"]) == ("response.failed", "failed")
            assert response["error"] == {"code": "server_error", "message": "The upstream is gone."}
            used = response["usage"]
            assert (used["output_tokens"], used["output_tokens_details"]["reasoning_tokens"]) == (3, 3)
            assert used["total_tokens"] == used["input_tokens"] + 3 > 3

    asyncio.run(main())


@pytest.mark.parametrize("fields", [{}, SEARCH], ids=["single", "search"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_stops_what_runs_for_it(fields: Json, stream: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda request: "step by step\n\n" * 200, token_s=0.01)
        async with serving(engine, [FakePRM()]) as client:
            asked = asyncio.create_task(post(client, stream=stream, **fields))
            await until(lambda: engine.live > 0 and engine.generated > 8)
            asked.cancel()
            await until(lambda: engine.live == 0)
            generated = engine.generated
            await asyncio.sleep(0.05)
            assert engine.generated == generated

    asyncio.run(main())


def test_a_silent_stream_tells_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime, "HEARTBEAT_S", 0.05)

    async def main() -> None:
        async with serving(FakeEngine(lambda request: "Yes", token_s=0.3)) as client:
            told = await events(client)
            assert told[0]["type"] == "response.created"
            assert [e["type"] for e in told].count("response.created") == 1
            assert [e["type"] for e in told].count("response.in_progress") >= 3
            assert len({e["response"]["id"] for e in told if "response" in e}) == 1
            assert text_of(told[-1]["response"]) == "Yes"

    asyncio.run(main())
