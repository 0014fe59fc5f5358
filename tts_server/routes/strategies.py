"""`GET /v1/strategies`: what `tts.strategy` can be, with the JSON schema of each one's options."""

from typing import Any

from fastapi import APIRouter, Request

import strategies
from tts_server.app_state import app_state

router = APIRouter()


@router.get("/v1/strategies")
async def listed(request: Request) -> dict[str, Any]:
    """Every strategy: name, one line, paper, options, and whether this server's engine can run it."""
    service = app_state(request).service
    return {
        "object": "list",
        "data": [
            {
                "id": entry.name,
                "object": "strategy",
                "description": entry.description,
                "paper": entry.paper,
                "uses_prm": entry.scored,
                "available": service.engine.continues or not entry.continues,
                "options": entry.options.model_json_schema(),
            }
            for entry in strategies.registry().values()
        ],
    }
