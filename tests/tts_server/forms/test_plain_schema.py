"""Schemas as grammars read them: every reference led to a plain name, and nothing that stands for no value."""

from typing import Any

import pytest
from referencing.exceptions import Unresolvable

from tts_server.forms.plain_schema import plain

N = {"type": "integer"}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": N}},
        {"properties": {"a": {"$ref": "#/definitions/n"}}, "definitions": {"n": N}},
        {"properties": {"a": {"$ref": "#n"}}, "$defs": {"x": {"$anchor": "n", **N}}},
        {"properties": {"a": {"$dynamicRef": "#n"}}, "$defs": {"x": {"$dynamicAnchor": "n", **N}}},
        {"properties": {"a": {"$ref": "n"}}, "$id": "https://a.example/all", "$defs": {"x": {"$id": "n", **N}}},
        {"properties": {"a": {"$ref": "#/$defs/a~1b%20c"}}, "$defs": {"a/b c": N}},
        {"properties": {"a": {"$ref": "#/$defs/x/$defs/n"}}, "$defs": {"x": {"$defs": {"n": N}}}},
        {"properties": {"a": {"$ref": "#n"}}, "$id": "https://a.example/all", "$defs": {"x": {"$anchor": "n", **N}}},
    ],
    ids=str,
)
def test_a_reference_leads_to_a_name(schema: dict[str, Any]) -> None:
    assert plain(schema, "p") == {"properties": {"a": {"$ref": "#/$defs/p0"}}, "$defs": {"p0": N}}


def test_a_schema_may_speak_of_itself() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/0"}}}
    assert plain(tree) == node | {"$defs": {"0": node}}


def test_a_reference_in_a_part_with_an_id_is_of_that_part() -> None:
    part = {"$id": "https://a.example/part", "properties": {"b": {"$ref": "#/$defs/n"}}, "$defs": {"n": N}}
    schema = {"properties": {"a": part, "c": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "string"}}}
    assert plain(schema) == {
        "properties": {"a": {"properties": {"b": {"$ref": "#/$defs/0"}}}, "c": {"$ref": "#/$defs/1"}},
        "$defs": {"0": N, "1": {"type": "string"}},
    }


def test_what_only_looks_like_a_reference_is_none() -> None:
    schema = {
        "properties": {"$ref": {"const": {"$ref": "#/no"}}, "$defs": N, "enum": {"enum": [{"$id": "x"}]}},
        "default": {"$ref": "#/no"},
        "required": ["$ref"],
    }
    assert plain(schema) == schema


@pytest.mark.parametrize("reference", ["#/no", "#no", "https://a.example/no", "no", "file:///etc/passwd"])
def test_a_reference_that_leads_nowhere_is_an_error_that_names_it(reference: str) -> None:
    with pytest.raises(Unresolvable) as caught:
        plain({"items": {"$ref": reference}})
    assert caught.value.ref == reference


@pytest.mark.parametrize(
    ("schema", "left"),
    [
        ({"properties": {"a": False, "b": True}}, {"properties": {"b": {}}}),
        ({"properties": {"a": False}, "required": ["a"]}, {"properties": {"a": False}, "required": ["a"]}),
        ({"anyOf": [False, N]}, {"anyOf": [N]}),
        ({"properties": {"a": {"oneOf": [False, False]}}}, {"properties": {}}),
        ({"properties": {"a": {"allOf": [N, False]}}}, {"properties": {}}),
        ({"prefixItems": [N, False, N]}, {"prefixItems": [N], "maxItems": 1}),
        ({"items": False, "additionalProperties": False}, {"items": False, "additionalProperties": False}),
        ({"uniqueItems": True, "deprecated": False}, {"uniqueItems": True, "deprecated": False}),
    ],
    ids=str,
)
def test_what_must_not_be_there_is_left_out(schema: dict[str, Any], left: Any) -> None:
    assert plain(schema) == left


def test_a_schema_that_is_a_word() -> None:
    assert plain(True) is True
    assert plain(False) is False
    assert plain({"not": True, "if": True}) == {"not": True, "if": True}
