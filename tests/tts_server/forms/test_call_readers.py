"""Calls of tools: found alike however the text is cut, and content where they are none."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_server.forms.call_readers import Hermes, Listed, Llama, Named, Piece, Reader
from tts_server.forms.form import gather
from tts_server.forms.tools import arguments_of

NAMES = ["add", "find_all"]
ADD = '{"name": "add", "arguments": {"x": 1, "y": "}<\\"\\\\"}}'


def calls(reader: Reader, text: str) -> list[tuple[str, Any]]:
    return [(call.name, arguments_of(call)) for call in gather(reader, text)[0]]


ONE = [("add", {"x": 1, "y": '}<"\\'})]
HERMES: list[tuple[str, list[tuple[str, Any]], str]] = [
    (f"<tool_call>\n{ADD}\n</tool_call>", ONE, ""),
    (f"<tool_call>{ADD}", ONE, ""),
    (f"I look.\n\n<tool_call>{ADD}</tool_call>\n", ONE, "I look."),
    (f"\n<tool_call>{ADD}</tool_call>\n<tool_call>{ADD}</tool_call>", ONE * 2, ""),
    (f"<tool_call>[{ADD}, {ADD}]</tool_call>", ONE * 2, ""),
    (f"<tool_call>{ADD}</tool_call> done", ONE, " done"),
    ('<tool_call>{"arguments": {"x": 1}, "name": "add"}</tool_call>', [("add", {"x": 1})], ""),
    ('<tool_call>{"name": "add", "arguments": "{\\"x\\": 1}"}</tool_call>', [("add", {"x": 1})], ""),
    ('<tool_call>{"name": "find_all", "parameters": {}}</tool_call>', [("find_all", {})], ""),
    ('<tool_call>{"name": "find_all"}</tool_call>', [("find_all", {})], ""),
    # Without tags, as smaller models write it.
    (f" {ADD}\n{ADD}\n", ONE * 2, ""),
    (f"{ADD} That is it.", ONE, " That is it."),
    (f"{ADD}\n</tool_call>", ONE, ""),
    ('{"arguments": {"x": 1}, "name": "add"}', [("add", {"x": 1})], ""),
    (f"So: {ADD}", [], None),
    ('{"name": "nobody", "arguments": {}} <tool_call>' + ADD, ONE, '{"name": "nobody", "arguments": {}}'),
    ('{"a": [1, 2]}', [], None),
    ('{"a": "' + "long " * 80 + '"} and so on', [], None),
    # What cannot be read stays content, as it was said.
    ('<tool_call>{"name": "nobody", "arguments": {}}</tool_call>', [], None),
    ("<tool_call>add(1)</tool_call> or so", [], None),
    ('a <tool_call>{"name": "add", ', [], None),
    ("<tool_ca", [], None),
    ("just text \n", [], None),
    ("", [], None),
    # Certain to be a call, and cut.
    ('<tool_call>{"name": "add", "arguments": {"x": 1, "y', [("add", None)], ""),
    ('<tool_call>{"name": "add", "arguments": {"x": </tool_call> ok', [("add", None)], " ok"),
]


@pytest.mark.parametrize(("text", "found", "content"), HERMES)
def test_calls_in_tags(text: str, found: list[tuple[str, Any]], content: str | None) -> None:
    assert calls(Hermes(NAMES), text) == found
    said = gather(Hermes(NAMES), text)[1]
    if content is None:
        assert said.replace(" ", "").strip() == text.replace(" ", "").strip()
    else:
        assert said == content


def cut(text: str, places: Sequence[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(edges)]


def in_pieces(reader: Reader, pieces: list[str]) -> tuple[list[tuple[str, str]], str]:
    told = [piece for text in pieces for piece in reader.push(text)] + list(reader.end())
    found: list[tuple[str, str]] = []
    for piece in told:
        if piece.name is not None:
            assert piece.call == len(found)
            found.append((piece.name, ""))
        if piece.call is not None:
            found[-1] = (found[-1][0], found[-1][1] + piece.arguments)
    return found, "".join(piece.content for piece in told)


LISTED = f'[{ADD.replace("arguments", "parameters")}, {{"name": "find_all", "parameters": {{}}}}]'
READERS: list[tuple[Callable[[], Reader], str]] = [
    *((lambda: Hermes(NAMES), text) for text, _, _ in HERMES),
    (lambda: Listed(NAMES), LISTED),
    (lambda: Listed(NAMES), LISTED[:-9]),
    (lambda: Llama(NAMES), ADD),
    (lambda: Llama(NAMES), "Hello {you}"),
    (lambda: Named("add"), '{"x": 1}'),
]


@pytest.mark.parametrize(("make", "text"), READERS)
@settings(max_examples=15, deadline=None)
@given(places=st.lists(st.integers(0, 200), max_size=8))
def test_a_stream_tells_the_same_calls_wherever_it_is_cut(
    make: Callable[[], Reader], text: str, places: list[int]
) -> None:
    assert in_pieces(make(), cut(text, places)) == in_pieces(make(), [text])
    assert in_pieces(make(), list(text)) == in_pieces(make(), [text])


def test_arguments_are_told_as_they_grow() -> None:
    reader = Hermes(NAMES)
    assert list(reader.push('<tool_call>\n{"name": "add", "argu')) == []
    assert list(reader.push('ments": ')) == []
    told = [piece for text in ('{"x"', ": 1", "}}", "\n</tool", "_call>") for piece in reader.push(text)]
    assert told[0] == Piece(call=0, name="add")
    assert "".join(piece.arguments for piece in told) == '{"x": 1}'
    assert len([piece for piece in told if piece.arguments]) == 3
    assert list(reader.end()) == []


def test_text_is_told_as_it_grows() -> None:
    reader = Hermes(NAMES)
    assert [piece.content for piece in reader.push("I will ")] == ["I will"]
    assert [piece.content for piece in reader.push("look. <tool")] == [" look."]
    assert [piece.content for piece in reader.push("box>")] == [" <toolbox>"]


def test_a_list_that_a_constraint_made() -> None:
    assert calls(Listed(NAMES), LISTED) == [*ONE, ("find_all", {})]
    assert gather(Listed(NAMES), "[]") == ([], "")
    cut_off = '[{"name": "find_all", "parameters": {}}, {"name": "ad'
    assert calls(Listed(NAMES), cut_off) == [("find_all", {})]
    assert "ad" in gather(Listed(NAMES), cut_off)[1]
    assert calls(Listed(NAMES), '[{"name": "nobody", "parameters": {}}]') == []


def test_llama_s_calls_are_whole_answers() -> None:
    assert calls(Llama(NAMES), f"<|python_tag|>{ADD}") == ONE
    assert calls(Llama(NAMES), f"{ADD}; {ADD}") == ONE * 2
    assert gather(Llama(NAMES), "Hi there") == ([], "Hi there")
    assert gather(Llama(NAMES), '{"a": 1}') == ([], '{"a": 1}')
    assert [piece.content for piece in Llama(NAMES).push("Hi ")] == ["Hi "]
