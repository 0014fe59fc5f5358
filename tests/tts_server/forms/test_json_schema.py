"""JSON answers: what follows a schema, what is the same, and what a client's schema cannot do to the server."""

import time
from typing import Any

import pytest

from tts_server.errors import InvalidRequest
from tts_server.forms.json_schema import Schema, canonical, parse

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"$ref": "#/$defs/y"}},
    "required": ["x"],
    "additionalProperties": False,
    "$defs": {"y": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"x": 1}, None),
        ({"x": 1, "y": 2}, None),
        ({"x": 1.0}, None),
        ({}, "$: 'x' is a required property"),
        ({"x": "1"}, "$.x: '1' is not of type 'integer'"),
        ({"x": 1, "y": -1}, "$.y: -1 is less than the minimum of 0"),
        ({"x": 1, "z": 1}, "$: Additional properties are not allowed ('z' was unexpected)"),
        ([1], "$: [1] is not of type 'object'"),
    ],
)
def test_a_fault_is_named_with_its_place(value: Any, fault: str | None) -> None:
    assert Schema(POINT, "f").fault_of(value) == fault


def test_without_a_schema_any_object_will_do() -> None:
    assert Schema(None, "f").fault_of({"a": [1]}) is None
    assert Schema(None, "f").fault_of([1]) == "$: [1] is not of type 'object'"
    assert Schema(True, "f").fault_of(5) is None


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": 5}, "f is no JSON schema: 5 is not"),
        ({"properties": {"a": {"minimum": "x"}}}, "f is no JSON schema: 'x' is not of type 'number'"),
        ({"properties": {"a": {"$ref": "#/no"}}}, "f holds the reference '#/no', which leads nowhere in it"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "f holds the reference 'file:///etc/passwd', which"),
        (
            {"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}},
            "f holds the reference 'http://127.0.0.1:1/x', which",
        ),
        ({"$ref": "#"}, "f holds references without an end"),
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Schema(schema, "f")
    assert said in caught.value.message
    assert caught.value.param == "f"


def test_a_schema_may_speak_of_itself_and_have_a_property_of_any_name() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}, "$ref": {"type": "integer"}}}
    assert Schema(tree, "f").fault_of({"next": {"next": {"$ref": 1}}}) is None
    assert (
        Schema(tree, "f").fault_of({"next": {"next": {"$ref": "a"}}})
        == "$.next.next['$ref']: 'a' is not of type 'integer'"
    )


def test_a_short_schema_that_stands_for_an_endless_one_is_given_up() -> None:
    doubling = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    with pytest.raises(InvalidRequest, match="references without an end"):
        Schema({"$ref": "#/$defs/d0", "$defs": doubling | {"d40": {}}}, "f")


def test_a_pattern_cannot_hold_the_server_up() -> None:
    evil = "(a+)+$"
    schema = {
        "properties": {"s": {"pattern": evil}},
        "patternProperties": {evil: {"type": "integer"}},
        "additionalProperties": False,
    }
    started = time.process_time()
    assert Schema(schema, "f").fault_of({"s": "a" * 60 + "!", "a" * 60 + "!": 1}) is None
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["", "{", "NaN", '{"a": Infinity}', "[" * 100_000, "1 2", '{"a": 1}x', "9" * 5000])
def test_what_is_no_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_equal_values_are_one_text() -> None:
    same = ['{"b": [1, 2.0], "a": "é"}', '{ "a":"\\u00e9",\n"b":[1.0,2] }']
    assert {canonical(parse(text)) for text in same} == {'{"a":"é","b":[1,2]}'}
    others = ['{"a": 1}', '{"a": "1"}', '{"a": true}', '{"a": 1.5}', '{"a": [1]}', '{"a": null}', "1e300", '["a", 1]']
    assert len({canonical(parse(text)) for text in others}) == len(others)
