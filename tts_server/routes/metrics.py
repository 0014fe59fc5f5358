"""`GET /metrics`, for Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from tts_server.observe.metrics.exposition import Shown

router = APIRouter()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """What the server has counted, how it is, and what its engine tells of itself."""
    shown: Shown = request.app.state.metrics
    return Response(await shown.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
