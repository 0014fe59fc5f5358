"""JSON schemas as the grammars of engines read them: each reference a pointer to a name in the schema's own `$defs`.

Grammars know `#/$defs/name` and little else: anchors, ids, escaped pointers and `false` are where they fail or let
anything through. A schema in this form can also become a part of another one, as references lead to names alone.
"""

from collections.abc import Mapping
from typing import Any

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_LEFT_OUT = {"$defs", "definitions", "$id", "$anchor", "$dynamicAnchor", "$schema", "$comment", "$vocabulary"}
"""Keywords that only references need, or nobody."""
_NAMED = {"properties", "patternProperties", "dependentSchemas"}
"""Keywords whose value maps names to schemas."""
_BRANCHES = {"anyOf", "oneOf", "allOf"}
_DATA = {"const", "enum", "default", "examples", "required", "dependentRequired"}
"""Keywords whose value is no schema."""


def plain(schema: Any, prefix: str = "") -> dict[str, Any] | bool:
    """A schema in the form that grammars read.

    Args:
        schema: JSON Schema 2020-12 or what older drafts share with it.
        prefix: of the names in `$defs`.

    Raises:
        Unresolvable: a reference leads nowhere in the schema.
    """
    if isinstance(schema, bool):
        return schema or False
    names = _Names(prefix)
    said = names.of(schema, Registry().resolver_with_root(DRAFT202012.create_resource(schema)))
    if isinstance(said, bool) or not names.definitions:
        return said
    return {**said, "$defs": names.definitions}


class _Names:
    """The definitions that references have led to so far."""

    def __init__(self, prefix: str) -> None:
        self.definitions: dict[str, Any] = {}
        self._prefix = prefix
        self._known: dict[int, str] = {}
        """By the identity of the schema that a reference leads to."""

    def of(self, schema: Any, resolver: Any) -> dict[str, Any] | bool:
        """A schema with its references led to names; False where nothing follows it."""
        if not isinstance(schema, Mapping):
            return {} if schema is True else schema
        if isinstance(schema.get("$id"), str):
            resolver = resolver.in_subresource(DRAFT202012.create_resource(schema))
        said: dict[str, Any] = {}
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                said["$ref"] = self._reference(value, resolver)
            elif key in _NAMED and isinstance(value, Mapping):
                said[key] = {name: self.of(inner, resolver) for name, inner in value.items()}
            elif key in _BRANCHES and isinstance(value, list):
                branches = [self.of(inner, resolver) for inner in value]
                possible = [branch for branch in branches if branch is not False]
                if not possible or (key == "allOf" and len(possible) < len(branches)):
                    return False
                said[key] = possible
            elif key == "prefixItems" and isinstance(value, list):
                said[key] = [self.of(inner, resolver) for inner in value]
            elif key not in _LEFT_OUT:
                said[key] = value if key in _DATA else self._inner(value, resolver)
        return _without_false(said)

    def _inner(self, value: Any, resolver: Any) -> Any:
        """The value of any other keyword, which may be a schema."""
        return self.of(value, resolver) if isinstance(value, Mapping) else value

    def _reference(self, reference: str, resolver: Any) -> str:
        try:
            target = resolver.lookup(reference)
        except Unresolvable as error:
            raise Unresolvable(ref=reference) from error
        name = self._known.get(id(target.contents))
        if name is None:
            name = self._known[id(target.contents)] = f"{self._prefix}{len(self._known)}"
            self.definitions[name] = {}
            self.definitions[name] = self.of(target.contents, target.resolver)
        return f"#/$defs/{name}"


def _without_false(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what must not be there: properties that may be left out, and items from some place on."""
    if properties := schema.get("properties"):
        needed = schema.get("required") or ()
        schema["properties"] = {name: s for name, s in properties.items() if s is not False or name in needed}
    items = schema.get("prefixItems")
    if isinstance(items, list) and False in items:
        most = items.index(False)
        schema["prefixItems"] = items[:most]
        schema["maxItems"] = min(most, schema.get("maxItems", most))
    return schema
