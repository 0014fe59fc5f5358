"""OpenAI's chat request with our `tts` object: the only place where a request's shape is checked.

Ranges are those of OpenAI's published specification; fields that vLLM adds keep vLLM's meaning. What becomes of fields
that are not named here stands in `protocol_fields`.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tts_server.config import BudgetConfig, Effort
from tts_server.schema.common import (
    MAX_TOOLS,
    UNSUPPORTED,
    ChatMessage,
    NamedTool,
    ResponseFormat,
    StreamOptions,
    StructuredOutputs,
    Tool,
    Wire,
    bad,
)
from tts_server.schema.fields import refusal

__all__ = ["TTS", "UNSUPPORTED", "ChatMessage", "ChatRequest", "Sampled", "SampledRequest", "bad"]

INT64 = 2**63
MAX_STOP = 1000
"""Characters of a stop string."""
_TOKEN_ID = re.compile("[0-9]{1,9}")


def _object(given: Any) -> Any:
    if given is not None and not isinstance(given, dict | TTS):
        raise PydanticCustomError("value", "tts is an object such as {example}", {"example": _EXAMPLE})
    return given


_EXAMPLE = '{"strategy": "best_of_n", "n": 8}'


class TTS(Wire):
    """How to spend compute on this request. The strategy's own options stand beside these fields."""

    model_config = ConfigDict(extra="allow")

    strategy: str | None = None
    budget: BudgetConfig | None = None
    prm: str | None = None
    """Which reward model scores; the server's own if not given."""
    return_candidates: bool | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Sampled(Wire):
    """What all requests for answers share: the model, how it is sampled, and how compute is spent."""

    model_config = ConfigDict(extra="allow")

    model: str
    tts: Annotated[TTS | None, BeforeValidator(_object)] = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=1024)
    # vLLM's own
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=64)
    include_stop_str_in_output: bool | None = None
    bad_words: list[Annotated[str, Field(min_length=1, max_length=MAX_STOP)]] | None = Field(None, max_length=1024)
    allowed_token_ids: list[Annotated[int, Field(ge=0, lt=INT64)]] | None = Field(None, max_length=200_000)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="after")
    def _refuses_what_it_cannot_honour(self) -> Self:
        if found := refusal(self.model_extra or {}):
            name, why = found
            raise bad(f"{name} is not supported: {why}", name, UNSUPPORTED)
        return self

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop or []
        if len(stops) > 4 or not all(stops):
            raise PydanticCustomError("value", "stop is one to four non-empty strings")
        if any(len(each) > MAX_STOP for each in stops):
            raise PydanticCustomError("value", "stop has at most {most} characters", {"most": MAX_STOP})
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _bias_of_ids(cls, bias: dict[str, float] | None) -> dict[str, float] | None:
        if bias and not all(_TOKEN_ID.fullmatch(key) and abs(value) <= 100 for key, value in bias.items()):
            raise PydanticCustomError("value", "logit_bias maps token ids to numbers from -100 to 100")
        return bias


class SampledRequest(Sampled):
    """What requests for chats and for texts share beside it."""

    reasoning_effort: Effort | None = None
    n: int | None = Field(None, ge=1, le=128)
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.structured_outputs and self.response_format and self.response_format.type != "text":
            raise bad("response_format and structured_outputs exclude each other", "structured_outputs")
        if self.stream_options and not self.stream:
            raise bad("stream_options is only allowed with stream: true", "stream_options")
        if self.min_tokens and self.limit is not None and self.min_tokens > self.limit:
            raise bad(f"min_tokens is at most the limit of {self.limit} tokens, got {self.min_tokens}", "min_tokens")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens of the answer, at most."""
        return self.max_tokens


_TEMPLATE_FIELDS = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


class ChatRequest(SampledRequest):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = Field(None, min_length=1, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    # vLLM's own
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    modalities: list[str] | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _own_variables(cls, variables: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if taken := sorted(_TEMPLATE_FIELDS & set(variables or ())):
            raise PydanticCustomError(
                "value", "chat_template_kwargs cannot set {name}, which has its own field", {"name": taken[0]}
            )
        return variables

    @model_validator(mode="after")
    def _hangs_together(self) -> "ChatRequest":
        if self.modalities and self.modalities != ["text"]:
            raise bad("modalities other than text are not supported", "modalities", UNSUPPORTED)
        if self.top_logprobs is not None and not self.logprobs:
            raise bad("top_logprobs is only allowed with logprobs: true", "top_logprobs")
        if self.add_generation_prompt and self.continue_final_message:
            raise bad("add_generation_prompt and continue_final_message exclude each other", "continue_final_message")
        self._check_tools()
        return self

    def _check_tools(self) -> None:
        names = [tool.function.name for tool in self.tools or ()]
        if self.tool_choice is not None and not names:
            raise bad("tool_choice is only allowed with tools", "tool_choice")
        if twice := [name for name in names if names.count(name) > 1]:
            raise bad(f"tools holds {twice[0]!r} more than once", "tools")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise bad(f"tool_choice names no tool of tools: {', '.join(names)}"[:200], "tool_choice")

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens
