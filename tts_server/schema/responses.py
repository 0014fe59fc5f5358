"""OpenAI's request for a response, as far as it needs no memory: the only place where its shape is checked.

Nothing is kept between requests, so what refers to something kept is refused, as is what is no text and no function.
What becomes of fields that are not named here stands in `protocol_fields`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from tts_server.config import Effort
from tts_server.errors import shown
from tts_server.schema.chat import Sampled
from tts_server.schema.common import MAX_TOOLS, UNSUPPORTED, Function, JsonSchema, Wire, bad, function_only
from tts_server.schema.response_items import Item

MAX_ITEMS = 9_999
"""With the instructions as many turns as a chat may have."""
LOGPROBS, ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"

_KEPT = "nothing is kept between requests"
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "store": ((None, False), _KEPT),
    "previous_response_id": ((None,), _KEPT),
    "conversation": ((None,), _KEPT),
    "background": ((None, False), _KEPT),
    "prompt": ((None,), _KEPT),
    "context_management": ((None, []), "what does not fit is refused, and nothing left out"),
    "add_generation_prompt": ((None, True), "every response is a new turn"),
    "continue_final_message": ((None, False), "every response is a new turn"),
}
"""Fields of responses alone that are not honoured, each with the values that ask for nothing, and why; those of chats,
too, stand in `protocol_fields`."""
_CHAT_ONLY = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": f"include: [{LOGPROBS!r}]",
    "n": "tts, which samples many and returns one",
}
"""What chats call something that has another name here: to ignore it is what a client cannot detect."""


class Reasoning(Wire):
    """How much is thought, and what is told of it."""

    model_config = ConfigDict(extra="allow")

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Without effect: what a search tells of its progress always comes as summary."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    mode: JsonValue = None
    context: JsonValue = None

    @model_validator(mode="after")
    def _is_plain(self) -> "Reasoning":
        for field, allowed in (("mode", "standard"), ("context", "auto")):
            if getattr(self, field) not in (None, allowed):
                raise bad(f"{field} is not supported but for {allowed!r}", field, UNSUPPORTED)
        return self


class TextFormat(Wire):
    """What the answer looks like; a schema stands beside its type."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, max_length=64)
    schema_: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None
    """Without effect: every answer is held to the schema."""
    description: str | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "TextFormat":
        for field, given in (("name", self.name), ("schema", self.schema_)):
            if self.type == "json_schema" and given is None:
                raise bad(f"{field} is required with type 'json_schema'", field)
        return self

    @property
    def response_format(self) -> dict[str, Any]:
        """The same as chats write it."""
        if self.type != "json_schema":
            return {"type": self.type}
        schema = JsonSchema.model_validate(self.model_dump(by_alias=True, exclude_none=True, exclude={"type"}))
        return {"type": self.type, "json_schema": schema.model_dump(by_alias=True, exclude_none=True)}


class Text(Wire):
    """The form of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    """Accepted and without effect."""


class FunctionTool(Function):
    """A tool of a request."""

    type: Literal["function"]
    output_schema: JsonValue = None
    defer_loading: bool | None = None
    allowed_callers: JsonValue = None

    @model_validator(mode="after")
    def _is_plain(self) -> "FunctionTool":
        for field, neutral in (
            ("output_schema", (None,)),
            ("defer_loading", (None, False)),
            ("allowed_callers", (None, ["direct"])),
        ):
            if getattr(self, field) not in neutral:
                raise bad(f"{field} is not supported", field, UNSUPPORTED)
        return self

    @property
    def tool(self) -> dict[str, Any]:
        """The same as chats write it."""
        function = self.model_dump(exclude_none=True, include=set(Function.model_fields))
        return {"type": "function", "function": function}


class NamedFunctionTool(Wire):
    """A tool by its name."""

    type: Annotated[Literal["function"], BeforeValidator(function_only)]
    name: str


class ToolChoice(Wire):
    """The tool that has to be called, or those that may be."""

    type: Literal["function", "allowed_tools"]
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[NamedFunctionTool] | None = Field(None, min_length=1, max_length=MAX_TOOLS)

    @property
    def names(self) -> list[str]:
        return [self.name] if self.name is not None else [tool.name for tool in self.tools or ()]


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind not in ("function", "allowed_tools"):
            raise PydanticCustomError(
                UNSUPPORTED,
                "tool_choice of type {kind} is not supported, only function and allowed_tools",
                {"kind": shown(kind)},
            )
        for field in ("name",) if kind == "function" else ("mode", "tools"):
            if choice.get(field) is None:
                raise bad(f"{field} is required in a tool_choice of type {kind!r}", field)
    elif choice not in (None, "none", "auto", "required"):
        raise PydanticCustomError("value", "tool_choice is 'none', 'auto', 'required' or an object")
    return choice


def _input(given: Any) -> Any:
    if not isinstance(given, str) and not (isinstance(given, list) and 0 < len(given) <= MAX_ITEMS):
        raise PydanticCustomError("value", "input is a text or a list of 1 to {most} items", {"most": MAX_ITEMS})
    return given


def _function(tool: Any) -> Any:
    """Its type comes first: other tools have other fields."""
    if isinstance(tool, dict):
        function_only(tool.get("type"))
    return tool


class ResponseStreamOptions(Wire):
    """What a stream carries beside the text."""

    include_obfuscation: bool | None = None


class ResponsesRequest(Sampled):
    """`POST /v1/responses`."""

    input: Annotated[str | list[Item], BeforeValidator(_input)]
    instructions: str | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    """Of the returned answer and its thought."""
    tools: list[Annotated[FunctionTool, BeforeValidator(_function)]] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Annotated[Literal["none", "auto", "required"] | ToolChoice | None, BeforeValidator(_choice)] = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(None, ge=1)
    """Bounds the calls of OpenAI's own tools, of which there are none here."""
    include: list[str] | None = Field(None, max_length=16)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream_options: ResponseStreamOptions | None = None
    metadata: (
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]] | None
    ) = Field(None, max_length=16)
    # Accepted, without effect, and told again.
    user: str | None = None
    safety_identifier: str | None = Field(None, max_length=64)
    prompt_cache_key: str | None = None
    # vLLM's own
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    # Refused unless they ask for nothing.
    store: JsonValue = None
    previous_response_id: JsonValue = None
    conversation: JsonValue = None
    background: JsonValue = None
    prompt: JsonValue = None
    context_management: JsonValue = None
    add_generation_prompt: JsonValue = None
    continue_final_message: JsonValue = None

    @model_validator(mode="after")
    def _is_stateless(self) -> "ResponsesRequest":
        for field, (neutral, why) in _REFUSED.items():
            if getattr(self, field) not in neutral:
                raise bad(f"{field} is not supported: {why}", field, UNSUPPORTED)
        for field, here in _CHAT_ONLY.items():
            if (self.model_extra or {}).get(field) is not None:
                raise bad(f"{field} is a field of chats; here it is {here}", field, UNSUPPORTED)
        return self

    @model_validator(mode="after")
    def _hangs_together(self) -> "ResponsesRequest":
        for i, wanted in enumerate(self.include or ()):
            if wanted not in (LOGPROBS, ENCRYPTED):
                message = f"include of {shown(wanted)} is not supported, only {LOGPROBS!r} and {ENCRYPTED!r}"
                raise bad(message, f"include[{i}]", UNSUPPORTED)
        if self.top_logprobs and not self.logprobs:
            raise bad(f"top_logprobs is only allowed with include: [{LOGPROBS!r}]", "top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options is only allowed with stream: true", "stream_options")
        if self.stream_options and self.stream_options.include_obfuscation:
            raise bad("include_obfuscation is not supported", "stream_options.include_obfuscation", UNSUPPORTED)
        if self.min_tokens and self.max_output_tokens is not None and self.min_tokens > self.max_output_tokens:
            raise bad(f"min_tokens is at most max_output_tokens, {self.max_output_tokens}", "min_tokens")
        if self.structured_outputs and self.text and self.text.format and self.text.format.type != "text":
            raise bad("text.format and structured_outputs exclude each other", "structured_outputs")
        self._check_tools()
        self._check_outputs()
        return self

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools or ()]
        choice = self.tool_choice
        if choice not in (None, "none", "auto") and not names:
            raise bad("tool_choice asks for a call, and there are no tools", "tool_choice")
        if twice := [name for name in names if names.count(name) > 1]:
            raise bad(f"tools holds {twice[0]!r} more than once", "tools")
        if isinstance(choice, ToolChoice) and (unknown := [name for name in choice.names if name not in names]):
            raise bad(f"tool_choice names {shown(unknown[0])}, which is no tool of tools", "tool_choice")

    def _check_outputs(self) -> None:
        """Every output belongs to a call before it."""
        called: set[str] = set()
        for i, item in enumerate(self.input if isinstance(self.input, list) else ()):
            if item.type == "function_call":
                called.add(item.call_id or "")
            elif item.type == "function_call_output" and item.call_id not in called:
                raise bad(f"there is no function_call {shown(item.call_id)} before this output", f"input[{i}].call_id")

    @property
    def logprobs(self) -> bool:
        """Whether those of the answer's tokens are wanted."""
        return LOGPROBS in (self.include or ())
