"""What many tests need: a server around a scripted engine, and the shapes of its answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI
from patience import NEVER_S

from prm import ProcessRewardModel
from tts_server.app import create_app
from tts_server.app_state import AppState
from tts_server.config import Settings
from tts_server.engines.base import ServedEngine
from tts_server.engines.fake import FakeEngine
from tts_server.server import http_config

if TYPE_CHECKING:
    from tts_server.observe.otel.spans import Tracing

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


@asynccontextmanager
async def serving(
    engine: ServedEngine | None = None,
    prms: Sequence[ProcessRewardModel] = (),
    settings: Settings | None = None,
    headers: dict[str, str] | None = None,
    app: FastAPI | None = None,
    tracing: "Tracing | None" = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server on a free port of this machine, in this event loop."""
    app = app or create_app(engine or FakeEngine(), prms, settings, tracing)
    if settings and "traces" in settings.model_fields_set:
        AppState.of(app).traces.start()
    config = http_config(app, host="127.0.0.1", port=0)
    server = uvicorn.Server(config)
    # As `Server.serve` does, without its loop that wakes up ten times a second, and without its signals.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=NEVER_S, limits=limits
        ) as client:
            yield client
    finally:
        server.servers[0].close()
        await until(lambda: not server.server_state.connections and not server.server_state.tasks)
        await AppState.of(app).traces.close()


def body(**fields: Any) -> dict[str, Any]:
    """A request that asks the fake engine one question."""
    return {"model": "fake", "messages": QUESTION} | fields


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body(**fields))


async def frames(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, which must end with [DONE]."""
    seen: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body(stream=True, **fields)) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.aread()).decode()
    for event in text.removesuffix("\n\n").split("\n\n"):
        assert event.startswith("data: ")
        seen.append(event.removeprefix("data: "))
    assert seen.pop() == "[DONE]"
    return [json.loads(data) for data in seen]


def content(chunks: Sequence[dict[str, Any]], index: int = 0, key: str = "content") -> str:
    """The text that a choice's deltas carry."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(key) or "" for choice in choices)


async def until(true: Callable[[], bool]) -> None:
    """Waits for something that happens in this event loop."""
    async with asyncio.timeout(NEVER_S):
        while not true():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.005)
