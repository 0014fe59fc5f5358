"""`/v1/batches`: many requests in a file, answered when nobody else waits."""

import time
from typing import Any

from fastapi import APIRouter, Query, Request

from tts_server.app_state import app_state
from tts_server.batches.files import Files
from tts_server.batches.jobs import Jobs
from tts_server.batches.records import BUDGET_KEY, KEEP_S, Batch, new_id, total_tokens
from tts_server.batches.sharing import ENDPOINTS as SHARING_ENDPOINTS
from tts_server.errors import InvalidRequest, UnsupportedParameter, shown
from tts_server.middleware.json_route import JSONRoute
from tts_server.request_state import owner_of
from tts_server.schema.batches import BatchRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/batches")
async def create(request: Request, body: BatchRequest) -> dict[str, Any]:
    """Takes a file's requests on; its lines are looked through after that."""
    batches = app_state(request).batches
    if body.endpoint not in batches.endpoints:
        said = f"endpoint: {shown(body.endpoint)} cannot be asked in a batch; allowed: {', '.join(batches.endpoints)}."
        raise UnsupportedParameter(said, param="endpoint")
    store, owner, now = await batches.store(), owner_of(request), int(time.time())
    file = await store.files(Files.get, body.input_file_id, owner, now, "input_file_id")
    if file.purpose != "batch":
        said = f"input_file_id: the file's purpose is 'batch', got {file.purpose!r}."
        raise InvalidRequest(said, param="input_file_id")
    _check_budget(body)
    batch = Batch(
        id=new_id("batch_"),
        owner=owner,
        model=batches.model,
        endpoint=body.endpoint,
        input_file_id=file.id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        keep_s=body.output_expires_after.seconds if body.output_expires_after else KEEP_S,
        created_at=now,
        expires_at=now + body.window_s,
    )
    await store.jobs(Jobs.add, batch)
    batches.wake()
    return batch.body


def _check_budget(body: BatchRequest) -> None:
    param = f"metadata.{BUDGET_KEY}"
    try:
        tokens = total_tokens(body.metadata)
    except ValueError as error:
        raise InvalidRequest(
            f"{param}: {error}, got {shown((body.metadata or {})[BUDGET_KEY])}.", param=param
        ) from None
    if tokens is not None and body.endpoint not in SHARING_ENDPOINTS:
        said = f"{param}: lines share a budget where each asks one question: {', '.join(SHARING_ENDPOINTS)}."
        raise InvalidRequest(said, param=param)


@router.get("/v1/batches")
async def batches(request: Request, limit: int = Query(20, ge=1, le=100), after: str | None = None) -> dict[str, Any]:
    """The caller's batches, the newest first."""
    service = app_state(request).batches
    page = await (await service.store()).jobs(Jobs.page, owner_of(request), limit=limit, after=after)
    ids = [batch.id for batch in page.batches]
    return {
        "object": "list",
        "data": [batch.body for batch in page.batches],
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": page.has_more,
    }


@router.get("/v1/batches/{batch_id}")
async def batch(request: Request, batch_id: str) -> dict[str, Any]:
    """One of them."""
    service = app_state(request).batches
    return (await (await service.store()).jobs(Jobs.get, batch_id, owner_of(request))).body


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> dict[str, Any]:
    """Ends it before its time; what is answered already is in its files."""
    service = app_state(request).batches
    store = await service.store()
    found = await store.jobs(Jobs.cancel, batch_id, owner_of(request), int(time.time()))
    service.wake()
    return found.body
