"""A stand-in for a vLLM server of a reward model, whose scores are those of `prefixes.drawn`."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from prefixes import TAG, drawn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

RIGHT, WRONG = 43, 45


@dataclass
class RewardServer:
    """What it serves; may be changed while it does."""

    task: Literal["all", "step", "last", "embed", "generate"] = "all"
    """What `/pooling` tells the rows of: all tokens, those of tags, the last; or it serves embeddings, or text."""
    models: tuple[str, ...] = ("m",)
    key: str | None = None
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; then 200."""
    cut: int = 0
    """Rows or items that are left out of each answer."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    """The `traceparent` of each call."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Its URL while it serves on this machine."""
        routes = [Route("/v1/models", self._models)]
        if self.task == "generate":
            routes.append(Route("/v1/completions", self._answer, methods=["POST"]))
        else:
            routes.append(Route("/pooling", self._answer, methods=["POST"]))
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=0, lifespan="off", log_level="critical"
        )
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.servers[0].close()
            for connection in list(server.server_state.connections):
                connection.shutdown()

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": name, "max_model_len": 2000} for name in self.models]})

    async def _answer(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "no key"}}, 401)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return JSONResponse({"error": {"message": "not now"}}, status, {"retry-after": "0"})
        body = await request.json()
        self.bodies.append(body)
        self.places.append(request.headers.get("traceparent", ""))
        prompts = body.get("input") or body["prompt"]
        key, item = ("choices", self._choice) if self.task == "generate" else ("data", self._data)
        items = [{"index": i, **item(prompt)} for i, prompt in enumerate(prompts)]
        tokens = sum(map(len, prompts)) + (len(prompts) if self.task == "generate" else 0)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({key: items[::-1], "usage": usage, "model": body["model"]})

    def _data(self, prompt: list[int]) -> dict[str, Any]:
        if self.task == "embed":
            return {"data": [0.1] * 64}
        if self.task == "last":
            return {"data": _row(prompt)}
        ends = range(len(prompt)) if self.task == "all" else [i for i, token in enumerate(prompt) if token == TAG]
        return {"data": [_row(prompt[: end + 1]) for end in ends][self.cut :]}

    def _choice(self, prompt: list[int]) -> dict[str, Any]:
        score = drawn(prompt)
        labels = {f"token_id:{RIGHT}": math.log(score / 2), f"token_id:{WRONG}": math.log((1 - score) / 2)}
        return {"logprobs": {"top_logprobs": [dict(list(labels.items())[self.cut :])]}}


def _row(prefix: list[int]) -> list[float]:
    score = drawn(prefix)
    return [1.0, 1.0 + math.log(score / (1 - score))]
