"""How models write calls: told by their templates, and which content was meant as one."""

import pytest

from tts_server.forms.call_formats import FORMATS, format_of, names_of
from tts_server.forms.form import gather

TOOLS = [{"type": "function", "function": {"name": "add"}}]


def test_a_template_tells_the_format() -> None:
    assert format_of("… <tool_call>\\n{name …") == "hermes"
    assert format_of("<|python_tag|>") == "llama3_json"
    assert format_of("<tool_call><function=name>") is None
    assert format_of("nothing of it") is None


@pytest.mark.parametrize(
    ("name", "broken", "words"), [("hermes", "a <tool_call>{", '{"a": 1}'), ("llama3_json", ' {"a": 1}', "a")]
)
def test_content_that_was_meant_as_a_call_is_told_apart(name: str, broken: str, words: str) -> None:
    assert FORMATS[name].is_broken(broken)
    assert not FORMATS[name].is_broken(words)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"name": "add", "arguments": {}}</tool_call>'),
        ("llama3_json", '{"name": "add", "parameters": {}}'),
    ],
)
def test_a_format_reads_the_calls_of_the_tools_that_it_is_given(name: str, text: str) -> None:
    assert names_of(TOOLS) == ["add"]
    assert gather(FORMATS[name].reader(TOOLS), text) == ([("add", "{}")], "")
    assert gather(FORMATS[name].reader([]), text) == ([], text)
