"""What is known of a search beside what it did: whose it was and what was planned."""

import time
from dataclasses import dataclass, field
from typing import Literal

from strategies.record.recorder import Recorder
from tts_server.planning.plan import Plan

Status = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Record:
    """One search."""

    id: str
    model: str
    plan: Plan
    recorder: Recorder
    owner: str = ""
    """Whose request it was; empty where there are no API keys."""
    request_id: str | None = None
    created: float = field(default_factory=time.time)

    @property
    def status(self) -> Status:
        """Cancelled is a search whose client left, or whose server went down."""
        if self.recorder.error:
            return "failed"
        return "done" if self.recorder.final else "cancelled"
