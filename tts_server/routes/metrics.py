"""`GET /metrics`, for Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from tts_server.app_state import app_state

router = APIRouter()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """What the server has counted, how it is, and what its engine tells of itself."""
    shown = app_state(request).metrics
    return Response(await shown.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
