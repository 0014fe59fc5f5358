"""The requests of `/tokenize` and `/detokenize`, as vLLM's server has them."""

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, model_validator

from tts_server.schema.chat import UNSUPPORTED, ChatMessage, bad
from tts_server.schema.common import MAX_TOOLS, Tool, Wire

_CHAT_ONLY = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools")


class TokenizeRequest(Wire):
    """A text, or a chat that the model's template renders."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)
    add_special_tokens: bool | None = None
    """Whether a text gets those that the model's texts begin with: it does if not given. A chat has its template's."""
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    tools: list[Tool] | None = Field(None, min_length=1, max_length=MAX_TOOLS)
    chat_template: JsonValue = None

    @model_validator(mode="after")
    def _hangs_together(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise bad("either prompt or messages is required", "prompt")
        if self.chat_template is not None:
            raise bad("chat_template is not supported: the model's own renders", "chat_template", UNSUPPORTED)
        if self.messages is not None and self.add_special_tokens:
            raise bad("add_special_tokens is not supported with messages", "add_special_tokens", UNSUPPORTED)
        for field in _CHAT_ONLY if self.messages is None else ():
            if getattr(self, field):
                raise bad(f"{field} is only allowed with messages", field)
        if self.add_generation_prompt and self.continue_final_message:
            raise bad("add_generation_prompt and continue_final_message exclude each other", "continue_final_message")
        return self


class DetokenizeRequest(Wire):
    """Token ids."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=2**63)]]
