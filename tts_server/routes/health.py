"""`GET /health`: the process is not to be replaced. `GET /ready`: a request that comes now will be answered."""

from fastapi import APIRouter, Request, Response

from tts_server.app_state import app_state
from tts_server.engines.base import Restarted
from tts_server.errors import EngineUnavailable

router = APIRouter()


@router.get("/health", response_class=Response)
async def health(request: Request) -> Response:
    """Empty, as probes expect it. An engine that is down is started again from within, so this is a 503 only where
    that was given up.
    """
    service = app_state(request).service
    if isinstance(service.engine, Restarted) and service.engine.given_up:
        raise EngineUnavailable("The engine died of every start and is given up; start the server again.")
    return Response()


@router.get("/ready", response_class=Response)
async def ready(request: Request) -> Response:
    """Empty; 503 with a sentence while the engine is down, and from the moment when the server is told to stop."""
    service = app_state(request).service
    drain = app_state(request).drain
    if drain.begun:
        raise EngineUnavailable("The server is going down.")
    if not service.engine.healthy:
        raise EngineUnavailable("The engine is not up; it is being started again.")
    return Response()
