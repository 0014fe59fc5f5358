"""OpenAI's requests for batches, as they come over the wire."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from tts_server.schema.common import Wire

MIN_KEEP_S, MAX_KEEP_S = 3600, 30 * 24 * 3600
MAX_WINDOW_H = 30 * 24
_WINDOW = re.compile(r"([1-9]\d{0,2})([hd])")


def _window(text: str) -> str:
    found = _WINDOW.fullmatch(text)
    if not found or int(found[1]) * (24 if found[2] == "d" else 1) > MAX_WINDOW_H:
        raise PydanticCustomError("value", "the window is written as hours or days, '24h' or '7d', up to 30 days")
    return text


class ExpiresAfter(Wire):
    """How long a file is kept."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_KEEP_S, le=MAX_KEEP_S)


class BatchRequest(Wire):
    """The body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    """A file of purpose `batch`."""
    endpoint: str
    """What each line asks."""
    completion_window: Annotated[str, AfterValidator(_window)]
    """How long its lines may wait; OpenAI's is always `24h`."""
    metadata: (
        dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]] | None
    ) = Field(None, max_length=16)
    output_expires_after: ExpiresAfter | None = None
    """How long its files are kept; 30 days if not given."""

    @property
    def window_s(self) -> int:
        return int(self.completion_window[:-1]) * 3600 * (24 if self.completion_window[-1] == "d" else 1)
