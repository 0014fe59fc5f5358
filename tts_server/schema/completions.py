"""The request of `POST /v1/completions`: OpenAI's older endpoint, whose prompt is a text and no chat.

What becomes of fields that neither this file nor `SampledRequest` names stands in `protocol_fields`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tts_server.schema.chat import UNSUPPORTED, SampledRequest, bad

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint alone."""
MAX_PROMPTS = 1024


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _shaped(prompt: Any) -> Any:
    several = isinstance(prompt, list) and 0 < len(prompt) <= MAX_PROMPTS
    if not (
        isinstance(prompt, str)
        or _is_ids(prompt)
        or (several and (all(isinstance(text, str) for text in prompt) or all(map(_is_ids, prompt))))
    ):
        raise PydanticCustomError(
            "value", "prompt is a text, a list of token ids, or a list of 1 to {most} of either", {"most": MAX_PROMPTS}
        )
    return prompt


class CompletionRequest(SampledRequest):
    """`POST /v1/completions`."""

    prompt: Annotated[str | list[str] | list[int] | list[list[int]], BeforeValidator(_shaped)]
    max_tokens: int | None = Field(None, ge=0)
    """16 if not given; 0 only with `echo`, for the prompt's logprobs."""
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = Field(None, ge=1, le=128)
    user: str | None = None
    # vLLM's own
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> "CompletionRequest":
        if self.best_of not in (None, self.n or 1):
            raise bad(
                "best_of is only supported where it equals n; to sample more and get the best, ask for the strategy "
                "'best_of_n' in tts",
                "best_of",
                UNSUPPORTED,
            )
        if self.max_tokens == 0 and not self.echo:
            raise bad("max_tokens is at least 1 without echo", "max_tokens")
        return self

    @property
    def limit(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """Each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        several = [part for part in self.prompt if not isinstance(part, int)]
        return several or [[token for token in self.prompt if isinstance(token, int)]]

    @property
    def is_list(self) -> bool:
        """Whether there is a list of prompts, also of one."""
        return isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
