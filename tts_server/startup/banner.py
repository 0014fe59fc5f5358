"""What a server that has started says of itself: what answers, within which limits, and who may ask."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from tts_server.admission.keys import Keys
from tts_server.app_state import AppState
from tts_server.config import Settings
from tts_server.engines.base import Slotted
from tts_server.observe.metrics.exposition import HasUpstreams
from tts_server.planning.service import Service

log = logging.getLogger(__name__)


def facts(app: FastAPI) -> dict[str, str]:
    """Each with its name, in the order in which they are told."""
    state = AppState.of(app)
    service, admission = state.service, state.admission
    settings = service.settings
    return {
        "model": f"{service.engine.model}{_context(service.engine.max_model_len)}",
        "engine": _engine(service),
        "reward models": ", ".join(service.prms) or "none",
        "at once": f"{admission.limit} samples, {settings.max_requests} requests; "
        f"{admission.max_waiting} samples may wait",
        "a request": _request(settings),
        "keys": _keys(state.keys, settings),
        "traces": f"{settings.traces}, in {settings.data_dir}" if settings.traces != "off" else "off",
        "at the end": f"{settings.grace_s:g} s for what is under way",
    }


def tell(app: FastAPI, console: Console) -> None:
    """One table; a line each where nobody looks at it, and one log line where logs are JSON."""
    told = facts(app)
    if AppState.of(app).service.settings.log_format == "json":
        log.info("started: %s", "; ".join(f"{name}: {value}" for name, value in told.items()))
    elif console.is_terminal:
        console.print(_table(told))
    else:
        for name, value in told.items():
            console.print(f"{name + ':':<15}{value}", markup=False, highlight=False, soft_wrap=True)


def _table(told: Mapping[str, str]) -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for name, value in told.items():
        table.add_row(name, value)
    return table


def _context(tokens: int | None) -> str:
    return "" if tokens is None else f", {tokens} tokens of context"


def _engine(service: Service) -> str:
    engine = service.engine
    if isinstance(engine, HasUpstreams):
        return f"openai, at {', '.join(upstream.origin for upstream in engine.upstreams)}"
    name = type(engine).__name__.removesuffix("Engine").lower()
    slots = engine.slots if isinstance(engine, Slotted) else None
    return name if slots is None else f"{name}, grows {slots} samples a step"


def _request(settings: Settings) -> str:
    most = settings.max_request
    limits = {
        "samples": most.max_samples,
        "generated tokens": most.max_tokens,
        "reward model's tokens": most.max_prm_tokens,
        "seconds": most.deadline_s,
    }
    bounds = [f"{limit:g} {name}" for name, limit in limits.items() if limit is not None]
    return "at most " + ", ".join([*bounds, f"{settings.max_body_bytes / 2**20:g} MiB"])


def _keys(keys: Keys, settings: Settings) -> str:
    if keys:
        return f"{len(keys.owners)}, of {len(keys.limits)} owners"
    return "none: open to " + ("this machine" if settings.is_local else f"whoever reaches {settings.host}")
