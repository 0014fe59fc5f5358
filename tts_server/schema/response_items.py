"""What a response's `input` is made of: messages, thoughts, calls of functions and their outputs.

A client sends back the items of earlier responses as they came, so what they carry beside is accepted.
"""

import base64
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tts_server.errors import shown
from tts_server.schema.common import UNSUPPORTED, Wire, bad

_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "reasoning": (),
}
_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal")


def _known_type(kind: Any) -> Any:
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise PydanticCustomError(
            UNSUPPORTED,
            "items of type {kind} are not supported, only {known}",
            {"kind": shown(kind), "known": ", ".join(_REQUIRED)},
        )
    return kind


def _typed(item: Any) -> Any:
    """A message may leave its type out; what has no role either refers to something kept."""
    if isinstance(item, dict) and item.get("type") is None:
        if "role" not in item:
            raise PydanticCustomError("value", "an item has a type, or is a message with a role")
        return {**item, "type": "message"}
    return item


def _text_only(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXTS:
        raise PydanticCustomError(
            UNSUPPORTED, "parts of type {kind} are not supported, only text", {"kind": shown(kind)}
        )
    return part


class Part(Wire):
    """A piece of text."""

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _has_text(self) -> "Part":
        field = "refusal" if self.type == "refusal" else "text"
        if getattr(self, field) is None:
            raise bad(f"{field} is required in a part of type {self.type!r}", field)
        return self


Parts = list[Annotated[Part, BeforeValidator(_text_only)]]


class InputItem(Wire):
    """One of them."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[
        Literal["message", "function_call", "function_call_output", "reasoning"], BeforeValidator(_known_type)
    ]
    # A message's
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    """Also a thought's, as it was told."""
    # A call's, and its output's
    call_id: str | None = Field(None, min_length=1, max_length=64)
    name: str | None = None
    arguments: str | None = None
    output: str | Parts | None = None
    # A thought's
    summary: Parts | None = None
    """Without effect: it is about the thought, or the search that it came from."""
    encrypted_content: str | None = None
    """A thought as `packed` wrote it, for clients that send back nothing else of it."""

    @model_validator(mode="after")
    def _is_whole(self) -> "InputItem":
        for field in _REQUIRED[self.type]:
            if getattr(self, field) is None:
                raise bad(f"{field} is required in an item of type {self.type!r}", field)
        try:
            unpacked(self.encrypted_content or "")
        except ValueError:
            raise bad("encrypted_content is not what this server gave", "encrypted_content") from None
        return self

    @property
    def text(self) -> str:
        """Of its content."""
        return joined(self.content) or unpacked(self.encrypted_content or "")


Item = Annotated[InputItem, BeforeValidator(_typed)]


def joined(content: str | list[Part] | None) -> str:
    """The text of some content."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join((part.text or "") + (part.refusal or "") for part in content)


def packed(thought: str) -> str:
    """A thought as clients keep and return it without reading it."""
    return base64.b64encode(thought.encode()).decode()


def unpacked(content: str) -> str:
    """The thought again.

    Raises:
        ValueError: it is none.
    """
    return base64.b64decode(content, validate=True).decode()
