"""Where in a distributed trace the work under way is."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TracePlace:
    """A place as W3C's headers write it."""

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


# OpenTelemetry keeps the span under way in a context variable. This one follows it, so that neither logs nor the client
# of upstreams import OpenTelemetry.
trace_place: ContextVar[TracePlace | None] = ContextVar("trace_place", default=None)
"""None where nothing is traced."""
