"""What belongs to the request under way, for whatever is called in its course: its id, its owner, and its
place in a trace.
"""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TracePlace:
    """Where in a distributed trace the work under way is, as W3C's headers say it."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent.split("-")[1]

    @property
    def span_id(self) -> str:
        return self.traceparent.split("-")[2]

    @property
    def header_lines(self) -> str:
        """The headers of a request that is part of this work, as HTTP/1.1 writes them."""
        state = f"tracestate: {self.tracestate}\r\n" if self.tracestate else ""
        return f"traceparent: {self.traceparent}\r\n{state}"


request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Empty outside of requests."""
owner: ContextVar[str] = ContextVar("owner", default="")
"""The name of who asks; empty where there are no API keys."""
trace_place: ContextVar[TracePlace | None] = ContextVar("trace_place", default=None)
"""None where nothing is traced."""
