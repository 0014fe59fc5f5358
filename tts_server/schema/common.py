"""The parts of OpenAI's requests that its endpoints share: messages, tools and the form of the answer."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tts_server.errors import shown
from tts_server.forms.json_schema import parse

UNSUPPORTED = "unsupported_parameter"
"""The error type of fields that are understood and refused."""
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_TOOLS = 128


def bad(message: str, field: str, kind: str = "value") -> PydanticCustomError:
    """An error of `field` found while looking at the whole request."""
    # Braces would be read as a template by pydantic-core.
    return PydanticCustomError(kind, "{message}", {"message": message, "field": field})


class Wire(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class TextPart(Wire):
    """A part of a message's content; what an assistant's turn refused with is one too."""

    type: Literal["text"]
    text: str


def _refusal_as_text(part: Any) -> Any:
    match part:
        case {"type": "refusal", "refusal": text}:
            return {"type": "text", "text": text}
    return part


def _parts(content: Any) -> Any:
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in (None, "text", "refusal"):
                raise PydanticCustomError(
                    UNSUPPORTED, "content parts of type {kind} are not supported, only text", {"kind": shown(kind)}
                )
    elif content is not None and not isinstance(content, str):
        raise PydanticCustomError("value", "content is a string, a list of text parts, or null")
    return list(map(_refusal_as_text, content)) if isinstance(content, list) else content


class CalledFunction(Wire):
    """What an assistant's turn called, and with which arguments."""

    name: str
    arguments: str
    """JSON."""


class ToolCall(Wire):
    """A call in an assistant's turn."""

    id: str
    type: Literal["function"] | None = None
    function: CalledFunction


class ChatMessage(Wire):
    """One turn."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | list[TextPart] | None, BeforeValidator(_parts)] = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    """What an assistant's turn said in place of an answer."""

    @model_validator(mode="after")
    def _has_content(self) -> "ChatMessage":
        if self.content is None and self.role != "assistant":
            raise bad(f"content is required in a message of role {self.role!r}", "content")
        if self.role == "tool" and self.tool_call_id is None:
            raise bad("tool_call_id is required in a message of role 'tool'", "tool_call_id")
        for field in ("tool_calls", "reasoning", "reasoning_content", "refusal"):
            if self.role != "assistant" and getattr(self, field):
                raise bad(f"{field} is only allowed in a message of role 'assistant'", field)
        return self

    @property
    def turn(self) -> dict[str, Any]:
        """The message as chat templates know it: some look for the thought under its old name."""
        turn = self.model_dump(exclude_none=True, exclude={"refusal"})
        for call in turn.get("tool_calls") or ():
            call["type"] = "function"
        if self.refusal and not self.content:
            turn["content"] = self.refusal
        if thought := self.reasoning or self.reasoning_content:
            turn |= {"reasoning": thought, "reasoning_content": thought}
        return turn


class Function(Wire):
    """What a model may call."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    """The JSON schema of its arguments; none are taken if not given."""
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _TOOL_NAME.fullmatch(name):
            raise PydanticCustomError("value", "a tool's name is 1 to 64 of a-z, A-Z, 0-9, underscore and dash")
        return name


def function_only(kind: Any) -> Any:
    """Refuses tools that are no functions."""
    if kind != "function":
        raise PydanticCustomError(
            UNSUPPORTED, "tools of type {kind} are not supported, only function", {"kind": shown(kind)}
        )
    return kind


class Tool(Wire):
    """A tool of a request."""

    type: Annotated[Literal["function"], BeforeValidator(function_only)]
    function: Function


class NamedFunction(Wire):
    """The name of a function."""

    name: str


class NamedTool(Wire):
    """The tool that has to be called."""

    type: Annotated[Literal["function"], BeforeValidator(function_only)]
    function: NamedFunction


class StreamOptions(Wire):
    """What a stream carries beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """A chat's chunks carry the usage so far, and one comes every second. Text completions send it once, at the end."""


class JsonSchema(Wire):
    """A schema that the answer follows."""

    name: str = Field(max_length=64)
    schema_: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None
    """Without effect: every answer is held to the schema."""
    description: str | None = None


class ResponseFormat(Wire):
    """What the answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise bad("json_schema is required with type 'json_schema'", "json_schema")
        return self


class StructuredOutputs(Wire):
    """What holds the answer, as vLLM has it: one of these."""

    model_config = ConfigDict(extra="allow")

    json_: dict[str, JsonValue] | str | None = Field(None, alias="json")
    """A schema, or the JSON of one."""
    json_object: bool | None = None
    choice: list[Annotated[str, Field(min_length=1, max_length=10_000)]] | None = Field(
        None, min_length=1, max_length=1000
    )
    regex: str | None = Field(None, min_length=1, max_length=10_000)
    grammar: str | None = Field(None, min_length=1, max_length=100_000)
    structural_tag: str | None = Field(None, min_length=1, max_length=1_000_000)
    """JSON, as XGrammar has it."""

    @model_validator(mode="after")
    def _is_one(self) -> "StructuredOutputs":
        known = ", ".join(field.alias or name for name, field in type(self).model_fields.items())
        for name, value in (self.model_extra or {}).items():
            if value not in (None, False):
                raise bad(f"{shown(name)} is not supported; allowed: {known}", name[:64], UNSUPPORTED)
        if len(self._given) != 1:
            raise PydanticCustomError("value", "it holds exactly one of {known}", {"known": known})
        _ = self.response_format
        return self

    @property
    def _given(self) -> dict[str, Any]:
        given = self.model_dump(by_alias=True, include=set(type(self).model_fields))
        return {kind: value for kind, value in given.items() if value not in (None, False)}

    @property
    def response_format(self) -> dict[str, Any]:
        """The same as `response_format` writes it; kinds that it does not know stand under their own name."""
        ((kind, value),) = self._given.items()
        if kind in ("json", "structural_tag") and isinstance(value, str):
            try:
                value = parse(value)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                raise bad(f"{kind} is a JSON object, or the text of one", kind)
        match kind:
            case "json_object":
                return {"type": "json_object"}
            case "json":
                return {"type": "json_schema", "json_schema": {"name": "structured_outputs", "schema": value}}
            case "structural_tag":
                return {**value, "type": "structural_tag"}
            case _:
                return {"type": kind, kind: value}
