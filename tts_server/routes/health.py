"""`GET /health`: 200 while the engine can answer."""

from fastapi import APIRouter, Request, Response

from tts_server.errors import EngineUnavailable
from tts_server.service import Service

router = APIRouter()


@router.get("/health", response_class=Response)
async def health(request: Request) -> Response:
    """Empty, as probes expect it; 503 while the engine is down."""
    service: Service = request.app.state.service
    if not service.engine.healthy:
        raise EngineUnavailable("The engine is not up; it is being started again.")
    return Response()
