"""`GET /v1/models` and `/v1/models/{id}`: the model, and an alias of it for each strategy and preset."""

from typing import Any

from fastapi import APIRouter, Request

from tts_server import __version__
from tts_server.app_state import app_state
from tts_server.errors import ModelNotFound
from tts_server.planning.plan import model_ids
from tts_server.planning.service import Service

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """Everything that can stand in a request's `model`."""
    service = app_state(request).service
    return {"object": "list", "data": [_described(id_, service) for id_ in model_ids(service)]}


@router.get("/v1/models/{id:path}")
async def model(request: Request, id: str) -> dict[str, Any]:  # noqa: A002  the name in OpenAI's path
    """One of them."""
    service = app_state(request).service
    known = model_ids(service)
    if id not in known:
        raise ModelNotFound(id, known)
    return _described(id, service)


def _described(id_: str, service: Service) -> dict[str, Any]:
    return {
        "id": id_,
        "object": "model",
        "created": service.created,
        "owned_by": "tts-server",
        "root": service.engine.model,
        "parent": service.engine.model if id_ != service.engine.model else None,
        "max_model_len": service.engine.max_model_len,
        # For whoever wants to know later what answered.
        "version": __version__,
        "engine": type(service.engine).__name__.removesuffix("Engine").lower(),
        "prm": service.default_prm,
    }
