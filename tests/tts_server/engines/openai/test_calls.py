"""Calls of tools as servers that call themselves OpenAI-compatible really send them.

Each case is named after whom it was seen of.
"""

import json
from typing import Any

import pytest
from says import BILL, Frames, Says, frame, heard
from upstream import Body

ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("find", "now")]


def called(function: Body | None, **call: Any) -> Body:
    return frame({"tool_calls": [call if function is None else {"type": "function", "function": function, **call}]})


def named(arguments: Any, **call: Any) -> Body:
    return called({"name": "find", "arguments": arguments}, **call)


CALLED = frame({}, "tool_calls")


TWO = [("find", ROME), ("find", OSLO)]
CALLS: dict[str, tuple[Frames, list[tuple[str, str]]]] = {
    "OpenAI": (
        [
            called({"name": "find", "arguments": ""}, index=0, id="a"),
            called({"arguments": '{"city":'}, index=0),
            called({"arguments": ' "Rome"}'}, index=0),
            called({"name": "find", "arguments": ""}, index=1, id="b"),
            called({"arguments": OSLO}, index=1),
            CALLED,
        ],
        TWO,
    ),
    "Gemini: no index": ([named(ROME, id="a"), CALLED], TWO[:1]),
    "Gemini: several in one delta": (
        [
            frame(
                {
                    "tool_calls": [
                        {"id": "a", "function": {"name": "find", "arguments": ROME}},
                        {"id": "b", "function": {"name": "find", "arguments": OSLO}},
                    ]
                }
            ),
            CALLED,
        ],
        TWO,
    ),
    "Gemini: an empty id": ([named(ROME, id=""), named(OSLO, id=""), CALLED], TWO),
    "Gemini: arguments in pieces without an index": (
        [
            named('{"city":', id="a"),
            called({"arguments": ' "Rome"}'}),
            named('{"city":', id="b"),
            called({"arguments": ' "Oslo"}'}),
            CALLED,
        ],
        TWO,
    ),
    "Gemini: a signature behind the call": (
        [named(ROME, id="a"), called(None, extra_content={"google": {"thought_signature": "x"}}), frame({}, "stop")],
        TWO[:1],
    ),
    "Ollama: all with index 0": ([named(ROME, index=0, id="a"), named(OSLO, index=0, id="b"), CALLED], TWO),
    "Ollama by way of LiteLLM: without ids": ([named(ROME, index=0), named(OSLO, index=0), CALLED], TWO),
    "LiteLLM: arguments as an object": ([named(json.loads(ROME), index=0, id="a"), CALLED], TWO[:1]),
    "LocalAI: one call under two indexes": (
        [named(ROME, index=0, id="a"), named(ROME, index=1, id="a"), CALLED],
        TWO[:1],
    ),
    "gateways: arguments told twice": (
        [named(ROME, index=0, id="a"), called({"arguments": ROME}, index=0), CALLED],
        TWO[:1],
    ),
    "vLLM: id and name once more with the rest": (
        [named('{"city":', index=0, id="a"), named(' "Rome"}', index=0, id="a"), CALLED],
        TWO[:1],
    ),
    "names that are null or empty later on": (
        [
            named("", index=0, id="a"),
            called({"name": None, "arguments": '{"city":'}, index=0, id=""),
            called({"name": "", "arguments": ' "Rome"}'}, index=0, id=None),
            CALLED,
        ],
        TWO[:1],
    ),
    "a name in pieces": (
        [
            called({"name": "fi", "arguments": ""}, index=0, id="a"),
            called({"name": "nd"}, index=0),
            called({"arguments": ROME}, index=0),
            CALLED,
        ],
        TWO[:1],
    ),
    "a name behind the id": (
        [called(None, index=0, id="a"), named("", index=0), called({"arguments": ROME}, index=0), CALLED],
        TWO[:1],
    ),
    "Qwen: calls that take turns": (
        [
            named('{"city":', index=0, id="a"),
            named('{"city":', index=1, id="b"),
            called({"arguments": ' "Rome"}'}, index=0),
            called({"arguments": ' "Oslo"}'}, index=1),
            CALLED,
        ],
        TWO,
    ),
    "TGI: one call and no list": (
        [frame({"tool_calls": {"index": 0, "id": "", "function": {"name": "find", "arguments": ROME}}}), CALLED],
        TWO[:1],
    ),
    "OpenAI before there were tools": (
        [
            frame({"function_call": {"name": "find", "arguments": ""}}),
            frame({"function_call": {"arguments": ROME}}),
            frame({}, "function_call"),
        ],
        TWO[:1],
    ),
    "no arguments": ([called({"name": "now", "arguments": ""}, index=0, id="a"), CALLED], [("now", "{}")]),
    "arguments null": ([called({"name": "now", "arguments": "null"}, index=0, id="a"), CALLED], [("now", "{}")]),
    "no arguments before others": (
        [called({"name": "now"}, index=0, id="a"), named(ROME, index=1, id="b"), CALLED],
        [("now", "{}"), ("find", ROME)],
    ),
    "an empty call behind the others": (
        [named(ROME, index=0, id="a"), called({"name": "", "arguments": ""}, index=1), CALLED],
        TWO[:1],
    ),
    "Dynamo: a line's end between calls": (
        [named(ROME, index=0, id="a"), frame({"content": "\n"}), named(OSLO, index=1, id="b"), CALLED],
        TWO,
    ),
    "Gemini and OpenAI: stop as the finish reason": ([named(ROME, index=0, id="a"), frame({}, "stop")], TWO[:1]),
    "no finish reason": ([named(ROME, index=0, id="a")], TWO[:1]),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_are_heard_whole_and_apart(case: str) -> None:
    said, wanted = CALLS[case]
    choice = heard(Says(says=[*said, BILL]), tools=TOOLS)
    calls = choice["message"]["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == wanted
    assert len({call["id"] for call in calls}) == len(wanted)
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_words_behind_and_between_calls_are_content() -> None:
    said = [
        named(ROME, index=0, id="a"),
        frame({"content": "Now Oslo."}),
        named('{"city":', index=1, id="b"),
        frame({"content": " Done."}),
        called({"arguments": ' "Oslo"}'}, index=1),
        CALLED,
    ]
    choice = heard(Says(says=said), tools=TOOLS)
    assert [call["function"]["arguments"] for call in choice["message"]["tool_calls"]] == [ROME, OSLO]
    assert choice["message"]["content"] == "Now Oslo. Done."
