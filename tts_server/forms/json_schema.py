"""JSON answers: whether a text is what a schema asks for, and when two of them are the same."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from tts_server.errors import InvalidRequest
from tts_server.forms.plain_schema import plain

_MAX_REFERENCES = 5_000
"""References that one check may follow: a short schema can stand for an endless one."""
_MAX_SHOWN = 120


class _Endless(Exception):
    """A schema whose references come to no end."""


class Schema:
    """What a JSON answer has to look like.

    Regular expressions are left to the engine's grammar: here a client's pattern could hold the server up. References
    lead nowhere but into the schema itself.

    Args:
        schema: JSON Schema 2020-12; None is any object.
        param: the request's field that it comes from.

    Raises:
        InvalidRequest: it is no schema.
    """

    def __init__(self, schema: Mapping[str, Any] | bool | None, param: str) -> None:
        self._schema = {"type": "object"} if schema is None else schema
        self._param = param
        self._followed = 0
        try:
            Draft202012Validator.check_schema(self._schema)
            keywords = {
                "$ref": self._counted("$ref"),
                "$dynamicRef": self._counted("$dynamicRef"),
                "pattern": _unchecked,
                "patternProperties": _unchecked,
            }
            if any(_values(self._schema, "patternProperties")):
                # These two match property names too.
                keywords |= {"additionalProperties": _unchecked, "unevaluatedProperties": _unchecked}
            validator: Any = extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]
            self._validator: Validator = validator(self._schema, registry=Registry())
            self.plain()
            self.fault_of(None)
        except (SchemaError, RecursionError) as error:
            said = error.message if isinstance(error, SchemaError) else "it is nested too deeply"
            raise InvalidRequest(f"{param} is no JSON schema: {said[:_MAX_SHOWN]}", param=param) from None

    def fault_of(self, value: Any) -> str | None:
        """Why a value is not what the schema asks for; None where it is.

        Raises:
            InvalidRequest: the schema cannot be followed.
        """
        self._followed = 0
        try:
            error: ValidationError | None = next(self._validator.iter_errors(value), None)
        except (_Endless, RecursionError):
            raise InvalidRequest(f"{self._param} holds references without an end", param=self._param) from None
        except Unresolvable as lost:
            raise self._lost(str(lost.ref)) from None
        return f"{error.json_path}: {error.message}"[:_MAX_SHOWN] if error else None

    def plain(self, prefix: str = "") -> dict[str, Any] | bool:
        """The schema as the grammars of engines read it; `prefix` is of the names in its `$defs`."""
        try:
            return plain(self._schema, prefix)
        except Unresolvable as lost:
            raise self._lost(str(lost.ref)) from None

    def _lost(self, reference: str) -> InvalidRequest:
        said = reference[:_MAX_SHOWN]
        return InvalidRequest(
            f"{self._param} holds the reference {said!r}, which leads nowhere in it", param=self._param
        )

    def _counted(self, keyword: str) -> Any:
        follow = Draft202012Validator.VALIDATORS[keyword]

        def counted(validator: Any, target: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            self._followed += 1
            if self._followed > _MAX_REFERENCES:
                raise _Endless
            yield from follow(validator, target, instance, schema) or ()

        return counted


def _unchecked(validator: Any, value: Any, instance: Any, schema: Any) -> None:
    """Stands for a keyword that is the engine's to keep."""


def _values(value: Any, key: str) -> Iterator[Any]:
    """What stands under a key, anywhere in a JSON value."""
    if isinstance(value, Mapping):
        yield from (inner for name, inner in value.items() if name == key)
        for inner in value.values():
            yield from _values(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, key)


def arguments_schema(parameters: Schema, prefix: str = "") -> dict[str, Any]:
    """The schema of a call's arguments, which are an object, as grammars read it."""
    said = parameters.plain(prefix)
    return {"type": "object", **({} if isinstance(said, bool) else said)}


def calls_schema(parameters: Mapping[str, Schema], key: str, answer: Schema | None = None) -> dict[str, Any]:
    """The schema of one call, an object of the tool's name and its arguments, or of an answer in place of a call.

    Args:
        parameters: the schema of each tool's arguments.
        key: of the arguments.
        answer: the schema of the answer, where one may be given.
    """
    branches: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for i, (name, schema) in enumerate(parameters.items()):
        arguments = arguments_schema(schema, f"tool{i}_")
        definitions |= arguments.pop("$defs", {})
        properties = {"name": {"type": "string", "enum": [name]}, key: arguments}
        branches.append({"type": "object", "properties": properties, "required": ["name", key]})
    if answer:
        said = answer.plain("answer_")
        whole = {} if isinstance(said, bool) else said
        definitions |= whole.pop("$defs", {})
        branches.append(whole)
    return {"anyOf": branches} | ({"$defs": definitions} if definitions else {})


def field_of(structured: Mapping[str, Any]) -> Literal["response_format", "structured_outputs", "tools"]:
    """The request's field that a constraint of `Sampling.structured` comes from."""
    if structured["type"] not in ("json_schema", "json_object"):
        return "structured_outputs"
    match structured.get("json_schema", {}).get("name"):
        case "structured_outputs":
            return "structured_outputs"
        case "tool_calls" | "call_or_answer":
            return "tools"
    return "response_format"


def parse(text: str) -> Any:
    """The JSON value of a text.

    Raises:
        ValueError: it is none, or one that no client could read.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def canonical(value: Any) -> str:
    """A JSON value as one text: equal values are equal texts, whatever their order of keys and their spaces."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    """The value with whole numbers as integers: 1.0 and 1 are one number in JSON."""
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class ObjectEnd:
    """Finds the end of a JSON object in a text that grows."""

    def __init__(self) -> None:
        self.ended = False
        self._depth = 0
        self._quoted = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of the text belong to the object, which may go on."""
        for i, char in enumerate(text):
            if self._quoted:
                self._quoted = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.ended = True
                    return i + 1
            elif char == "<":
                # No JSON: the block is closed, though the object is not.
                self.ended = True
                return i
        return len(text)
