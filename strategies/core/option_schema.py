"""What a strategy's options are, in words: from the properties of their JSON schema."""

import json
from collections.abc import Mapping
from typing import Any

_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("minLength", "characters: at least {}"),
    ("maxLength", "characters: at most {}"),
    ("minItems", "items: at least {}"),
    ("maxItems", "items: at most {}"),
)


def type_of(option: Mapping[str, Any]) -> str:
    """Its types, such as `integer or null`."""
    names = [_type_name(choice) for choice in _choices(option)]
    nullable = any(choice.get("type") == "null" for choice in option.get("anyOf", ()))
    return " or ".join([*names, *(["null"] if nullable else [])])


def default_of(option: Mapping[str, Any]) -> str:
    """Its default as JSON, or that it is required."""
    return json.dumps(option["default"], ensure_ascii=False) if "default" in option else "required"


def allowed_of(option: Mapping[str, Any], quote: str = "") -> str:
    """The words that it can be, or its bounds.

    Args:
        option: its schema.
        quote: stands around each word.
    """
    allowed = []
    for choice in _choices(option):
        values = choice.get("enum", [choice["const"]] if "const" in choice else [])
        allowed += [", ".join(f"{quote}{value}{quote}" for value in values)] if values else []
        allowed += [text.format(choice[key]) for key, text in _BOUNDS if key in choice]
    return ", ".join(allowed) or "any"


def _choices(option: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [choice for choice in option.get("anyOf", [option]) if choice.get("type") != "null"]


def _type_name(choice: Mapping[str, Any]) -> str:
    if choice.get("type") == "array":
        return f"list of {_type_name(choice['items'])}s"
    return "object" if "type" not in choice else str(choice["type"])
