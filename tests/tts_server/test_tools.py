"""Tools: what holds an answer that has to be a call."""

import json
from typing import Any

from tts_server.call_readers import Call
from tts_server.tools import Tools, arguments_of


def tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def test_a_call_that_has_to_be_made_is_a_schema() -> None:
    x = {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    tools = (tool("add", x), {"type": "function", "function": {"name": "find_all"}})
    assert Tools(tools).constraint() is None
    named = Tools(tools, {"type": "function", "function": {"name": "add"}})
    assert named.constraint() == x
    required = Tools(tools, "required", parallel=False).constraint()
    assert required
    assert (required["type"], required["minItems"], required["maxItems"]) == ("array", 1, 1)
    assert required["$defs"] == x["$defs"]
    assert [call["properties"]["name"]["enum"] for call in required["items"]["anyOf"]] == [["add"], ["find_all"]]
    assert "$defs" not in json.dumps(required["items"]).replace("#/$defs", "")
    assert "maxItems" not in (Tools(tools, "required").constraint() or {})


def test_arguments_are_an_object_or_none() -> None:
    assert arguments_of(Call("add", '{"x": 1}')) == {"x": 1}
    assert [arguments_of(Call("add", text)) for text in ("", "[]", "{", "NaN", "1")] == [None] * 5
