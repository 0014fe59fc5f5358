"""The request of `POST /v1/traces/{id}/feedback`."""

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from tts_server.schema.common import Wire, bad


class FeedbackRequest(Wire):
    """What a client says of an answer."""

    model_config = ConfigDict(extra="forbid")

    correct: bool | None = None
    """Whether the answer was right."""
    score: Annotated[float | None, Field(ge=0, le=1)] = None
    """How good it was, where right or wrong is not the question; one of the two is given."""
    comment: Annotated[str | None, Field(max_length=2000)] = None
    """Kept where traces are kept in full."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "FeedbackRequest":
        if (self.correct is None) == (self.score is None):
            raise bad("give either correct (true or false) or score (0 to 1)", "correct")
        return self
