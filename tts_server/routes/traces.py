"""`GET /v1/traces`, `/v1/traces/{id}` and `POST …/feedback`: the records of searches, the caller's own."""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

import strategies
from tts_server.app_state import app_state
from tts_server.errors import InvalidRequest, shown
from tts_server.middleware.json_route import JSONRoute
from tts_server.observe.traces.feedback import Feedback
from tts_server.request_state import owner_of
from tts_server.schema.feedback import FeedbackRequest

router = APIRouter(route_class=JSONRoute)

JSONL = "application/jsonl"
DEFAULT_LIMIT, MAX_LIMIT = 20, 1000


@router.get("/v1/traces", responses={200: {"content": {JSONL: {}}}})
async def listed(
    request: Request,
    limit: int | None = Query(None, ge=1, le=MAX_LIMIT),
    after: str | None = None,
    strategy: str | None = None,
    format: Literal["json", "jsonl"] | None = None,  # noqa: A002  its name in the API
) -> Response:
    """The newest first: what each search was and what it cost, as a list, or whole records as JSONL."""
    traces = app_state(request).traces
    if strategy is not None and strategy not in strategies.registry():
        known = ", ".join(strategies.registry())
        raise InvalidRequest(f"strategy: unknown strategy {shown(strategy)}; known: {known}", param="strategy")
    if format == "jsonl" or (format is None and JSONL in request.headers.get("accept", "")):
        lines = await traces.export(owner_of(request), limit, after, strategy)
        return StreamingResponse(lines, media_type=JSONL)
    limit = limit or DEFAULT_LIMIT
    found = await traces.page(owner_of(request), limit + 1, after, strategy)
    page = found[:limit]
    body = {
        "object": "list",
        "data": [orjson.Fragment(stored.head) for stored in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(found) > limit,
    }
    return Response(orjson.dumps(body), media_type="application/json")


@router.get("/v1/traces/{id}")
async def trace(request: Request, id: str) -> dict[str, Any]:  # noqa: A002  its name in the API
    """One search: what was asked of the model, what it said, how it was scored, and what became of it."""
    traces = app_state(request).traces
    return await traces.get(id, owner_of(request))


@router.post("/v1/traces/{id}/feedback")
async def feedback(request: Request, id: str, body: FeedbackRequest) -> dict[str, Any]:  # noqa: A002  its name in the API
    """Says of a search's answer whether it was right, or how good; in place of what was said before."""
    traces = app_state(request).traces
    kept = await traces.judge(id, owner_of(request), Feedback(body.correct, body.score, body.comment))
    return {"object": "trace.feedback", "trace_id": id, **kept}
