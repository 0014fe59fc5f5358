"""OpenAI's chat request with our `tts` object: the only place where a request's shape is checked.

Ranges are those of OpenAI's published specification; fields that vLLM adds keep vLLM's meaning.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tts_server.config import BudgetConfig, Effort
from tts_server.errors import shown

INT64 = 2**63
_TOKEN_ID = re.compile("[0-9]{1,9}")
UNSUPPORTED = "unsupported_parameter"
"""The error type of fields that are understood and refused."""


def bad(message: str, field: str, kind: str = "value") -> PydanticCustomError:
    """An error of `field` found while looking at the whole request."""
    # Braces would be read as a template by pydantic-core.
    return PydanticCustomError(kind, "{message}", {"message": message, "field": field})


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class TextPart(_Wire):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


def _parts(content: Any) -> Any:
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in (None, "text"):
                raise PydanticCustomError(
                    UNSUPPORTED, "content parts of type {kind} are not supported, only text", {"kind": shown(kind)}
                )
    elif content is not None and not isinstance(content, str):
        raise PydanticCustomError("value", "content is a string, a list of text parts, or null")
    return content


class ChatMessage(_Wire):
    """One turn."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | list[TextPart] | None, BeforeValidator(_parts)] = None

    @model_validator(mode="after")
    def _has_content(self) -> "ChatMessage":
        if self.content is None and self.role != "assistant":
            raise bad(f"content is required in a message of role {self.role!r}", "content")
        if (self.model_extra or {}).get("tool_calls"):
            raise bad("tool calls are not supported", "tool_calls", UNSUPPORTED)
        return self


class StreamOptions(_Wire):
    """What a stream carries beside the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    """Accepted and without effect: usage is sent once, in the last chunk."""


class JsonSchema(_Wire):
    """A schema that the answer follows."""

    name: str = Field(max_length=64)
    schema_: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(_Wire):
    """What the answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise bad("json_schema is required with type 'json_schema'", "json_schema")
        return self


class TTS(_Wire):
    """How to spend compute on this request. The strategy's own options stand beside these fields."""

    model_config = ConfigDict(extra="allow")

    strategy: str | None = None
    budget: BudgetConfig = BudgetConfig()
    prm: str | None = None
    """Which reward model scores; the server's own if not given."""
    return_candidates: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ChatRequest(_Wire):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    tts: TTS | None = None
    reasoning_effort: Effort | None = None
    n: int | None = Field(None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    logit_bias: dict[str, float] | None = None
    # vLLM's own
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool = False
    stop_token_ids: list[int] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    # Refused: to ignore them silently is what a client cannot detect.
    tools: JsonValue = None
    functions: JsonValue = None
    tool_choice: JsonValue = None
    audio: JsonValue = None
    modalities: list[str] | None = None
    prediction: JsonValue = None
    web_search_options: JsonValue = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop or []
        if len(stops) > 4 or not all(stops):
            raise PydanticCustomError("value", "stop is one to four non-empty strings")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _bias_of_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias and not all(_TOKEN_ID.fullmatch(key) and abs(value) <= 100 for key, value in bias.items()):
            raise PydanticCustomError("value", "logit_bias maps token ids to numbers from -100 to 100")
        return bias

    @model_validator(mode="after")
    def _hangs_together(self) -> "ChatRequest":
        for field in ("tools", "functions", "tool_choice", "audio", "prediction", "web_search_options"):
            if getattr(self, field) is not None:
                raise bad(f"{field} is not supported", field, UNSUPPORTED)
        if self.modalities and self.modalities != ["text"]:
            raise bad("modalities other than text are not supported", "modalities", UNSUPPORTED)
        if self.stream_options and not self.stream:
            raise bad("stream_options is only allowed with stream: true", "stream_options")
        if self.top_logprobs is not None and not self.logprobs:
            raise bad("top_logprobs is only allowed with logprobs: true", "top_logprobs")
        if self.add_generation_prompt and self.continue_final_message and "add_generation_prompt" in self.given:
            raise bad("add_generation_prompt and continue_final_message exclude each other", "continue_final_message")
        return self

    @property
    def given(self) -> set[str]:
        """The fields that the client sent."""
        return self.model_fields_set
