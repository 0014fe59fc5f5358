"""What one server's routes stand on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request

from tts_server.admission.keys import Keys
from tts_server.admission.queue import Admission
from tts_server.admission.shutdown import Drain
from tts_server.admission.usage import Ledger
from tts_server.batches import Batches
from tts_server.observe.metrics.exposition import Shown
from tts_server.observe.traces.store import Traces
from tts_server.planning.service import Service

if TYPE_CHECKING:
    from tts_server.observe.otel.spans import Tracing


@dataclass(frozen=True, slots=True)
class AppState:
    """Made by `create_app`, once for each app."""

    service: Service
    keys: Keys
    admission: Admission
    drain: Drain
    traces: Traces
    usage: Ledger
    metrics: Shown
    batches: Batches
    tracing: "Tracing | None"
    """None where nothing is traced."""

    @classmethod
    def of(cls, app: FastAPI) -> "AppState":
        """The state of this app."""
        state: AppState = app.state.server
        return state


def app_state(request: Request) -> AppState:
    """The state of the app that answers the request."""
    return AppState.of(request.app)
