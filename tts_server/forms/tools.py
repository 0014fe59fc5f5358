"""The tools of a request: how they may be called, and what holds an answer to that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tts_server.forms.call_formats import CallFormat, Tool, names_of
from tts_server.forms.call_readers import Call, Listed, Named, Reader
from tts_server.forms.json_schema import Schema, arguments_schema, calls_schema, parse


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of one request and how they may be called."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required"] | Mapping[str, Any] = "auto"
    parallel: bool = True
    """Whether one answer may hold several calls."""

    @property
    def names(self) -> list[str]:
        return names_of(self.tools)

    @property
    def named(self) -> str | None:
        """The tool that has to be called."""
        return None if isinstance(self.choice, str) else self.choice["function"]["name"]

    def constraint(self, parameters: Mapping[str, Schema]) -> Mapping[str, Any] | None:
        """The schema of an answer that has to be a call: the arguments of the named tool, or a list of calls.

        Args:
            parameters: the schema of each tool's arguments.
        """
        if self.named:
            return arguments_schema(parameters[self.named])
        if self.choice == "auto":
            return None
        calls = calls_schema(parameters, "parameters")
        most = {} if self.parallel else {"maxItems": 1}
        listed = {"type": "array", "minItems": 1, **most, "items": {"type": "object", "anyOf": calls["anyOf"]}}
        return listed | ({"$defs": calls["$defs"]} if "$defs" in calls else {})

    def reader(self, form: CallFormat, *, constrained: bool) -> Reader:
        """Reads one answer.

        Args:
            form: how the model writes calls.
            constrained: whether one that has to call has the form that `constraint` gives it.
        """
        if constrained and self.named:
            return Named(self.named)
        return Listed(self.names) if constrained and self.choice == "required" else form.reader(self.tools)


def arguments_of(call: Call) -> dict[str, Any] | None:
    """A call's arguments; None where they are no JSON object."""
    try:
        value = parse(call.arguments)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
