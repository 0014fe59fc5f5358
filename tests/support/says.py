"""An upstream that says what a test wrote down, frame by frame, and a server over it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from serving import ask, content, frames, serving
from starlette.requests import Request
from starlette.responses import Response
from upstream import Body, StandIn

from tts_server.config import Settings
from tts_server.engines.openai_http import OpenAIEngine

Frames = Sequence[Any]

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
BILL = {"choices": [], "usage": USAGE}


def frame(delta: Any, finish: Any = None, **choice: Any) -> Body:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]}


@dataclass
class Says(StandIn):
    """Answers every chat with the same frames."""

    kind: Any = "chat"
    says: Frames = ()
    done: bool = True
    whole: Body | None = None
    """An answer that is no stream, whatever was asked for."""
    status: int = 200
    asked: list[Body] = field(default_factory=list)

    async def _generate(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.whole is not None:
            status = self.status if len(self.asked) > 1 else 200
            return Response(json.dumps(self.whole), status, media_type="application/json")
        said = [f if isinstance(f, str) else f"data: {json.dumps(f)}\n\n" for f in self.says]
        return Response("".join([*said, *(["data: [DONE]\n\n"] if self.done else [])]), media_type="text/event-stream")


@asynccontextmanager
async def over(upstream: StandIn, settings: Settings | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server over an upstream."""
    async with upstream.serve() as url:
        engine = OpenAIEngine(url, name="fake", backoff_s=0.01)
        await engine.start()
        try:
            async with serving(engine, settings=settings) as client:
                yield client
        finally:
            await engine.close()


def heard(upstream: StandIn, **fields: Any) -> Body:
    """A chat's one choice, which is the same streamed, with the answer's usage."""

    async def main() -> Body:
        async with over(upstream) as client:
            answer = await ask(client, **fields)
            assert answer.status_code == 200, answer.text
            whole: Body = answer.json()
            choice = whole["choices"][0]
            seen = await frames(client, **fields)
            # A search also tells its progress as reasoning, while it streams.
            for key in ("content", "refusal", *(() if "tts" in fields else ("reasoning",))):
                assert content(seen, key=key) == (choice["message"].get(key) or "")
            assert [c["choices"][0]["finish_reason"] for c in seen][-1] == choice["finish_reason"]
            return choice | {"usage": whole["usage"]}

    return asyncio.run(main())
