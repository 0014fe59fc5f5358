"""`/v1/files`: the input of batches, and what came of them."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from tts_server.app_state import app_state
from tts_server.batches.files import PIECE_BYTES, Files
from tts_server.batches.records import KEEP_S, File, Piece, new_id
from tts_server.batches.store import Store
from tts_server.errors import InvalidRequest, RequestTooLarge, StorageFull, UnsupportedParameter, shown
from tts_server.request_state import owner_of
from tts_server.schema.batches import MAX_KEEP_S, MIN_KEEP_S

router = APIRouter()

MAX_FILENAME = 255
"""Characters."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_FIELDS = ("file", "purpose", _ANCHOR, _SECONDS)
_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["batch"]},
        _ANCHOR: {"type": "string", "enum": ["created_at"]},
        _SECONDS: {"type": "integer", "minimum": MIN_KEEP_S, "maximum": MAX_KEEP_S},
    },
    "additionalProperties": False,
}


@router.post(
    "/v1/files",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload(request: Request) -> Response:
    """Keeps a file of requests for a batch."""
    batches = app_state(request).batches
    try:
        async with request.form(max_files=1, max_fields=len(_FIELDS), max_part_size=1024) as form:
            file, data = _read(form, owner_of(request), batches.limits.max_file_bytes)
            await _save(file, data, await batches.store())
    except ClientDisconnect:
        return Response(status_code=499)
    except OSError as error:
        # A large upload goes through the directory for temporary files.
        if error.errno not in _FULL:
            raise
        raise StorageFull(f"The upload cannot be taken in: {error.strerror}.") from error
    return JSONResponse(file.body)


@router.get("/v1/files")
async def files(
    request: Request,
    purpose: str | None = None,
    limit: int = Query(10_000, ge=1, le=10_000),
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """The caller's files."""
    page = await (await _store(request)).files(
        Files.page, owner_of(request), purpose, time.time(), limit=limit, after=after, ascending=order == "asc"
    )
    ids = [file.id for file in page.files]
    return {
        "object": "list",
        "data": [file.body for file in page.files],
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": page.has_more,
    }


@router.get("/v1/files/{file_id}")
async def file(request: Request, file_id: str) -> dict[str, Any]:
    """One of them."""
    return (await _get(request, file_id)).body


@router.get("/v1/files/{file_id}/content", response_class=Response)
async def content(request: Request, file_id: str) -> Response:
    """Its bytes."""
    found = await _get(request, file_id)
    headers = {"content-length": str(found.bytes), "x-content-type-options": "nosniff"}
    return StreamingResponse(
        _content(found, await _store(request)), media_type="application/octet-stream", headers=headers
    )


@router.delete("/v1/files/{file_id}")
async def delete(request: Request, file_id: str) -> dict[str, Any]:
    """Forgets it; a batch that has begun does not need it any more."""
    await (await _store(request)).files(Files.delete, file_id, owner_of(request), time.time())
    return {"id": file_id, "object": "file", "deleted": True}


async def _store(request: Request) -> Store:
    batches = app_state(request).batches
    return await batches.store()


async def _get(request: Request, file_id: str) -> File:
    return await (await _store(request)).files(Files.get, file_id, owner_of(request), time.time())


async def _content(file: File, store: Store) -> AsyncIterator[bytes]:
    after = -1
    while pieces := await store.files(Files.pieces, file.id, after):
        after = pieces[-1].number
        yield b"".join(piece.data for piece in pieces)


def _read(form: FormData, owner: str, max_bytes: int) -> tuple[File, UploadFile]:
    """The file that a form carries."""
    unknown = [name for name in form if name not in _FIELDS]
    if unknown:
        raise InvalidRequest(f"Unknown field {shown(unknown[0])}; allowed: {', '.join(_FIELDS)}.", param=unknown[0])
    data, purpose = form.get("file"), form.get("purpose")
    if not isinstance(data, UploadFile) or data.size is None:
        raise InvalidRequest("file is the file itself, with a name.", param="file")
    if purpose != "batch":
        raise UnsupportedParameter(f"purpose: files are kept for 'batch' only, got {shown(purpose)}.", param="purpose")
    name = data.filename or ""
    if len(name) > MAX_FILENAME:
        raise InvalidRequest(f"file: a name has at most {MAX_FILENAME} characters.", param="file")
    if data.size > max_bytes:
        raise RequestTooLarge(f"The file is over the limit of {max_bytes} bytes.", param="file")
    now = int(time.time())
    return File(new_id("file-"), owner, "batch", name, data.size, now, now + _keep_s(form)), data


def _keep_s(form: FormData) -> int:
    anchor, seconds = form.get(_ANCHOR), form.get(_SECONDS)
    if anchor is None and seconds is None:
        return KEEP_S
    if anchor != "created_at":
        raise InvalidRequest(f"{_ANCHOR} is 'created_at', got {shown(anchor)}.", param=_ANCHOR)
    text = seconds if isinstance(seconds, str) and seconds.isascii() and seconds.isdigit() else "0"
    if len(text) > 9 or not MIN_KEEP_S <= int(text) <= MAX_KEEP_S:
        said = f"{_SECONDS} is a whole number from {MIN_KEEP_S} to {MAX_KEEP_S}, got {shown(seconds)}."
        raise InvalidRequest(said, param=_SECONDS)
    return int(text)


async def _save(file: File, data: UploadFile, store: Store) -> None:
    await store.files(Files.add, file)
    try:
        number = 0
        while piece := await data.read(PIECE_BYTES):
            await store.files(Files.append, file.id, Piece(number, piece))
            number += 1
        await store.files(Files.finish, file.id)
    except BaseException:
        # Also where its client has left.
        await asyncio.shield(store.files(Files.forget, file.id))
        raise
