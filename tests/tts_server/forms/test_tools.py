"""Tools: what holds an answer that has to be a call."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tts_server.forms.call_readers import Call
from tts_server.forms.json_schema import Schema
from tts_server.forms.tools import Tools, arguments_of


def tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def constraint(tools: Tools) -> Any:
    return tools.constraint({t["function"]["name"]: Schema(t["function"]["parameters"], "p") for t in tools.tools})


def test_a_call_that_has_to_be_made_is_a_schema() -> None:
    x = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = (tool("add", x), tool("find_all", {"type": "object", "properties": {}}))
    assert constraint(Tools(tools)) is None
    assert constraint(Tools(tools, {"type": "function", "function": {"name": "add"}})) == x
    required = constraint(Tools(tools, "required", parallel=False))
    assert (required["type"], required["minItems"], required["maxItems"]) == ("array", 1, 1)
    assert [call["properties"]["name"]["enum"] for call in required["items"]["anyOf"]] == [["add"], ["find_all"]]
    assert required["items"]["anyOf"][0]["properties"]["parameters"] == x
    assert "maxItems" not in constraint(Tools(tools, "required"))


def item(kind: str, where: str, reference: str) -> dict[str, Any]:
    """Arguments whose one property is a reference to a definition that every tool calls Item."""
    definition = {"type": kind, "$anchor": "item"}
    return {"properties": {"item": {"$ref": reference}}, "required": ["item"], where: {"Item": definition}}


@pytest.mark.parametrize(
    ("where", "reference"),
    [("$defs", "#/$defs/Item"), ("definitions", "#/definitions/Item"), ("$defs", "#item")],
)
def test_each_tool_keeps_its_own_definitions(where: str, reference: str) -> None:
    tools = (tool("ship", item("string", where, reference)), tool("bill", item("integer", where, reference)))
    schema = constraint(Tools(tools, "required"))
    calls = Draft202012Validator(schema)
    assert calls.is_valid([{"name": "ship", "parameters": {"item": "A1"}}])
    assert calls.is_valid([{"name": "bill", "parameters": {"item": 5}}])
    assert not calls.is_valid([{"name": "ship", "parameters": {"item": 5}}])
    assert not calls.is_valid([{"name": "bill", "parameters": {"item": "A1"}}])
    assert not calls.is_valid([{"name": "bill", "parameters": 5}])
    named = constraint(Tools(tools, {"type": "function", "function": {"name": "bill"}}))
    assert [Draft202012Validator(named).is_valid(value) for value in ({"item": 5}, {"item": "A1"}, 5)] == [1, 0, 0]


def test_arguments_may_hold_themselves() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    calls = Draft202012Validator(constraint(Tools((tool("grow", tree), tool("cut", tree)), "required")))
    assert calls.is_valid([{"name": "cut", "parameters": {"next": {"next": {}}}}])
    assert not calls.is_valid([{"name": "cut", "parameters": {"next": {"name": "cut"}}}])


def test_arguments_are_an_object_or_none() -> None:
    assert arguments_of(Call("add", '{"x": 1}')) == {"x": 1}
    assert [arguments_of(Call("add", text)) for text in ("", "[]", "{", "NaN", "1")] == [None] * 5
