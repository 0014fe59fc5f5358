"""The request of `POST /v1/prm/score`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prm import Aggregation, split_steps
from strategies.core.contracts import Prompt, Task
from tts_server.schema.chat import ChatMessage, bad

MAX_STEPS = 1024
MAX_ITEMS = 1024


class ScoreItem(BaseModel):
    """One solution of one question; each is written in one of two ways."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)
    """The question is their last user turn."""
    steps: list[str] | None = Field(None, min_length=1, max_length=MAX_STEPS)
    solution: str | None = None
    """Split into steps at its blank lines."""

    @model_validator(mode="after")
    def _is_complete(self) -> "ScoreItem":
        _check_one(self)
        return self

    @property
    def asked(self) -> str:
        """The question's text, as a strategy takes it from a chat."""
        turns = tuple(message.model_dump() for message in self.messages or ())
        return Task(Prompt(messages=turns)).question if self.question is None else self.question

    @property
    def parts(self) -> tuple[str, ...]:
        """The steps."""
        return split_steps(self.solution or "") if self.steps is None else tuple(self.steps)


class ScoreRequest(ScoreItem):
    """One solution to score, or a `batch` of them."""

    batch: list[ScoreItem] | None = Field(None, min_length=1, max_length=MAX_ITEMS)
    aggregation: Aggregation | None = None
    """The reward model's own if not given."""
    prm: str | None = None
    """Which reward model scores; the server's own if not given."""

    @model_validator(mode="after")
    def _is_complete(self) -> "ScoreRequest":
        if self.batch is None:
            _check_one(self)
        for field in ScoreItem.model_fields if self.batch is not None else ():
            if getattr(self, field) is not None:
                raise bad(f"{field} stands in the items of batch, not beside it", field)
        return self

    @property
    def items(self) -> list[ScoreItem]:
        return [self] if self.batch is None else self.batch


def _check_one(item: ScoreItem) -> None:
    """Refuses an item that does not say its question and its solution exactly once, or says nothing in them."""
    _check_either("question", item.question, "messages", item.messages)
    _check_either("steps", item.steps, "solution", item.solution)
    if not item.asked.strip():
        raise bad("there is no question: it is a text that is not blank", _given(item, "question", "messages"))
    parts, field = item.parts, _given(item, "steps", "solution")
    if not 0 < len(parts) <= MAX_STEPS:
        raise bad(f"a solution has 1 to {MAX_STEPS} steps, this one has {len(parts)}", field)
    blank = next((k for k, part in enumerate(parts) if not part.strip()), None)
    if blank is not None:
        raise bad(f"step {blank} is empty; a step is a text that is not blank", field)


def _check_either(field: str, value: Any, other: str, other_value: Any) -> None:
    if value is None and other_value is None:
        raise bad(f"{field} or {other} is required", field)
    if value is not None and other_value is not None:
        raise bad(f"{field} and {other} exclude each other", field)


def _given(item: ScoreItem, field: str, other: str) -> str:
    return other if getattr(item, field) is None else field
