"""Items as a chat's turns, and a chat's errors in the request's own names."""

from typing import Any

import pytest

from tts_server.errors import ContextTooLong, InvalidRequest
from tts_server.planning.response_chat import chat_of, renamed, turns_of
from tts_server.schema.responses import ResponsesRequest

Json = dict[str, Any]


def turns(given: Any, **fields: Any) -> list[Json]:
    return turns_of(ResponsesRequest.model_validate({"model": "m", "input": given} | fields))


def said(role: str, text: str) -> Json:
    return {"role": role, "content": text}


def call(call_id: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", "id": "fc_1"}


def output(call_id: str, text: Any = "done") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def thought(text: str) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def kinds(given: list[Json]) -> list[str]:
    """The roles of turns, with what the model's own hold."""
    return [" ".join([turn["role"], *sorted(turn.keys() - {"role", "tool_call_id"})]) for turn in given]


def test_a_text_is_a_user_s_turn_behind_the_instructions() -> None:
    assert turns("Hi.") == [said("user", "Hi.")]
    assert turns("Hi.", instructions="Be brief.") == [said("system", "Be brief."), said("user", "Hi.")]


def test_messages_keep_their_roles_and_texts() -> None:
    given = [
        said("developer", "Be brief."),
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": t} for t in ("H", "i")]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "No", "annotations": []}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "Never"}]},
    ]
    wanted = [("developer", "Be brief."), ("user", "Hi"), ("assistant", "No"), ("assistant", "Never")]
    assert turns(given) == [said(role, text) for role, text in wanted]


def test_what_the_model_did_at_once_is_one_turn() -> None:
    given = [said("user", "Go."), thought("Why?"), said("assistant", "On it."), call("a"), call("b")]
    user, model, *results = turns([*given, output("a"), output("b", [{"type": "input_text", "text": "two"}])])
    assert user == said("user", "Go.")
    assert (model["reasoning"], model["content"]) == ("Why?", "On it.")
    assert [c["id"] for c in model["tool_calls"]] == ["a", "b"]
    assert [(r["role"], r["tool_call_id"], r["content"]) for r in results] == [
        ("tool", "a", "done"),
        ("tool", "b", "two"),
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([call("a"), output("a"), call("b"), output("b")], ["assistant tool_calls", "tool content"] * 2),
        ([call("a"), said("assistant", "x")], ["assistant tool_calls", "assistant content"]),
        ([said("assistant", "x"), thought("y"), call("a")], ["assistant content", "assistant reasoning tool_calls"]),
        ([thought("x"), thought("y")], ["assistant content reasoning"]),
        ([thought(""), said("user", "x")], ["user content"]),
        ([thought("x"), said("user", "y")], ["assistant content reasoning", "user content"]),
    ],
    ids=str,
)
def test_what_comes_between_ends_a_turn(given: list[Json], wanted: list[str]) -> None:
    assert kinds(turns(given)) == wanted


def test_a_summary_is_no_thought() -> None:
    summary = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "4 samples"}]}
    assert kinds(turns([summary, said("assistant", "x")])) == ["assistant content"]


def test_what_a_chat_cannot_hold_is_refused_as_input() -> None:
    request = ResponsesRequest.model_validate({"model": "m", "input": [call("a")] * 129})
    with pytest.raises(InvalidRequest, match="tool_calls") as caught:
        chat_of(request)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("chat", "ours"),
    [
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("tools[3].function.parameters", "tools[3].parameters"),
        ("reasoning_effort", "reasoning.effort"),
        ("messages[1].content", "input"),
        ("tts.budget.max_tokens", "tts.budget.max_tokens"),
        ("temperature", "temperature"),
    ],
)
def test_a_chat_s_error_names_the_request_s_field(chat: str, ours: str) -> None:
    assert renamed(InvalidRequest("It is wrong.", param=chat)).param == ours


def test_an_error_s_words_name_it_too() -> None:
    error = renamed(InvalidRequest("response_format goes with tools[0].function only", param="response_format"))
    assert error.message == "text.format goes with tools[0] only"


def test_the_words_that_clients_know_a_long_input_by_stay() -> None:
    error = renamed(ContextTooLong(9, 8))
    assert (error.param, error.message) == ("input", ContextTooLong(9, 8).message)
