"""`GET /v1/usage`: what the caller's own requests have cost since the start of the server."""

from typing import Any

from fastapi import APIRouter, Request

from tts_server.app_state import app_state
from tts_server.request_state import owner_of

router = APIRouter()


@router.get("/v1/usage")
async def usage(request: Request) -> dict[str, Any]:
    """Requests that may compute something, and their tokens; of everybody where there are no API keys."""
    ledger = app_state(request).usage
    keys = app_state(request).keys
    owner = owner_of(request)
    spent, limits = ledger.of(owner), keys.limits.get(owner)
    cost = spent.cost
    return {
        "object": "usage",
        "owner": owner or None,
        "since": ledger.since,
        "requests": spent.statuses.total(),
        "statuses": dict(sorted(spent.statuses.items())),
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "engine_prompt_tokens": cost.engine_prompt_tokens,
        "cached_prompt_tokens": cost.cached_prompt_tokens,
        "prm_tokens": cost.prm_tokens,
        "prm_calls": cost.prm_calls,
        "samples": cost.samples,
        "limits": None if limits is None else limits.model_dump(),
    }
