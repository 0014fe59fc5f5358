"""A server with files and batches, in this process or in one of its own, and what its clients do."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from patience import NEVER_S

from prm import ProcessRewardModel
from tts_server.app import create_app
from tts_server.app_state import AppState
from tts_server.config import BatchConfig, Settings
from tts_server.engines.base import ServedEngine
from tts_server.engines.fake import FakeEngine

CHAT = "/v1/chat/completions"


def line(id_: str, text: str = "What is 2 + 2?", url: str = CHAT, **fields: Any) -> dict[str, Any]:
    """A line of an input file."""
    asked = {"model": "fake", "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": id_, "method": "POST", "url": url, "body": asked}


def jsonl(lines: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


@asynccontextmanager
async def batching(
    data_dir: Path,
    engine: ServedEngine | None = None,
    batch: BatchConfig | None = None,
    prms: Sequence[ProcessRewardModel] = (),
    **settings: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that keeps its files and batches in a directory and goes on with those that are there."""
    limits = batch or BatchConfig()
    app = create_app(engine or FakeEngine(), prms, Settings(data_dir=data_dir, batch=limits, **settings))
    await AppState.of(app).batches.start()
    try:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=NEVER_S) as client:
            yield client
    finally:
        await AppState.of(app).batches.close()


async def upload(client: httpx.AsyncClient, data: bytes, name: str = "in.jsonl", **fields: str) -> httpx.Response:
    return await client.post("/v1/files", files={"file": (name, data)}, data={"purpose": "batch", **fields})


async def submit(client: httpx.AsyncClient, lines: Sequence[Any] | bytes, **fields: Any) -> dict[str, Any]:
    """A batch that was made of some lines."""
    file = await upload(client, lines if isinstance(lines, bytes) else jsonl(lines))
    assert file.status_code == 200, file.text
    asked = {"input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h", **fields}
    made = await client.post("/v1/batches", json=asked)
    assert made.status_code == 200, made.text
    batch: dict[str, Any] = made.json()
    return batch


async def ended(client: httpx.AsyncClient, batch: dict[str, Any], *statuses: str) -> dict[str, Any]:
    """The batch once it has one of these statuses, or has come to its end."""
    last = statuses or ("failed", "completed", "expired", "cancelled")
    async with asyncio.timeout(NEVER_S):
        while (seen := (await client.get(f"/v1/batches/{batch['id']}")).json())["status"] not in last:  # noqa: ASYNC110  as its clients do
            await asyncio.sleep(0.01)
    found: dict[str, Any] = seen
    return found


async def told(client: httpx.AsyncClient, file_id: str | None) -> dict[str, dict[str, Any]]:
    """The lines of an output or error file by their id; each is there once."""
    if file_id is None:
        return {}
    text = (await client.get(f"/v1/files/{file_id}/content")).text
    lines = [json.loads(one) for one in text.splitlines()]
    by_id = {one["custom_id"]: one for one in lines}
    assert len(by_id) == len(lines)
    return by_id
