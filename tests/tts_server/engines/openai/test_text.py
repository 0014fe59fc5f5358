"""A chat's deltas as one text, which is read again as the upstream told it apart."""

from typing import Any

import pytest

from strategies.answers.think_tags import split
from tts_server.engines.openai.text import ChatText
from tts_server.forms.call_readers import Hermes
from tts_server.forms.form import gather


def call(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function}]}


def text_of(*deltas: dict[str, Any]) -> str:
    text = ChatText()
    return "".join(text.grow(delta, ended=delta is deltas[-1]) for delta in deltas)


def test_a_plain_chat_is_its_content() -> None:
    assert text_of({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {}) == "ab"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_marked_as_a_model_marks_it(name: str) -> None:
    text = text_of({name: "a"}, {name: "b", "content": None}, {"content": "4"}, {name: "late"}, {})
    assert split(text) == ("ab", "4")
    assert split(text_of({name: "a"}, {})) == ("a", "")
    assert split(text_of({name: "a", "content": "4"})) == ("a", "4")


def test_calls_are_written_as_hermes_has_them() -> None:
    deltas = [
        {"reasoning": "hm"},
        {"content": "I look."},
        call(0, "", "add"),
        call(0, '{"x":'),
        call(0, " 1}"),
        call(1, "", "find"),
        {},
    ]
    thought, answer = split(text_of(*deltas))
    assert thought == "hm"
    assert gather(Hermes(["add", "find"]), answer) == ([("add", '{"x": 1}'), ("find", "{}")], "I look.")
    assert split(text_of({"reasoning": "hm"}, call(0, "{}", "add"))).answer.startswith("<tool_call>")
