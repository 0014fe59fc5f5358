"""A stand-in for an OpenAI-compatible upstream, with switches for everything that can go wrong with one.

It speaks in tokens of one character, whose id is its code point.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Trouble = Literal["cut", "garbage", "error", "hang", "silence", "abort"]
Body = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """An answer that is none."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def default_reply(body: Body, index: int) -> str:
    return f"So.\n\nIt is {index}{body.get('seed') or ''}"


@dataclass
class StandIn:
    """What it does; may be changed while it serves."""

    kind: Literal["vllm", "chat"] = "vllm"
    api: str = "/v1"
    models: tuple[str, ...] = ("stand-in", "other")
    max_model_len: int = 200
    key: str | None = None
    reply: Callable[[Body, int], str] = default_reply
    limit_field: str = "max_tokens"
    refuses: frozenset[str] = frozenset()
    """Fields that are a 400."""
    ignores: frozenset[str] = frozenset()
    """Fields that are not looked at."""
    continuous: bool = True
    usage: bool = True
    piece: int = 1
    """Tokens a frame."""
    echoes: bool = True
    """Tells the prompt's logprobs where they are asked for, as new ones of its kind do; their text is left out."""
    reasoning: str = ""
    """What a chat thinks before it answers."""
    roles: frozenset[str] = frozenset({"system", "developer", "user", "assistant", "tool"})
    """Those that the template shows."""
    calls: tuple[tuple[str, str], ...] = ()
    """Which tools a chat calls behind its text, and with which arguments."""
    opening: str | None = None
    """With which the template ends; None where the upstream tells no text of token ids."""
    cached: int = 0
    token_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    """The answers to the next generating requests."""
    broken: dict[int, Failure] = field(default_factory=dict)
    """Seeds that always fail."""
    trouble: Trouble | None = None
    after: int = 3
    """Frames until the trouble."""
    trickle: bool = False
    """Sends single bytes."""
    hang: bool = False
    """Answers no generating request."""

    live: int = 0
    """Requests that are being generated now."""
    tokens: int = 0
    disconnects: int = 0
    connections: set[Any] = field(default_factory=set)
    requests: list[tuple[str, Body]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    places: list[tuple[str, str]] = field(default_factory=list)
    """Path and `traceparent` of each request with a body."""
    states: list[str] = field(default_factory=list)
    """The `tracestate` of each that has one."""

    @property
    def bodies(self) -> list[Body]:
        """Of the generating requests, since `forget`."""
        return [body for path, body in self.requests if path.endswith("completions")]

    def forget(self) -> None:
        """Empties what was counted."""
        self.requests.clear()
        self.places.clear()
        self.tokens = self.disconnects = 0

    def app(self) -> Starlette:
        routes = [
            Route(f"{self.api}/models", self._models),
            Route(f"{self.api}/chat/completions", self._generate, methods=["POST"]),
        ]
        if self.kind == "vllm":
            routes += [
                Route("/tokenize", self._tokenize, methods=["POST"]),
                *([] if self.opening is None else [Route("/detokenize", self._detokenize, methods=["POST"])]),
                Route(f"{self.api}/completions", self._generate, methods=["POST"]),
            ]
        return Starlette(routes=routes)

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Its URL while it serves on this machine, in this event loop."""
        config = uvicorn.Config(self.app(), host="127.0.0.1", port=port, lifespan="off", log_level="critical")
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            # Its own shutdown takes a tenth of a second, whatever there is to shut.
            server.servers[0].close()
            for connection in list(server.server_state.connections):
                connection.shutdown()

    async def _models(self, request: Request) -> Response:
        if refused := self._locked(request):
            return refused
        self.requests.append((request.url.path, {}))
        extra = {"max_model_len": self.max_model_len} if self.kind == "vllm" else {}
        cards = [{"id": model, "object": "model", "created": 1, "owned_by": "x"} | extra for model in self.models]
        return JSONResponse({"object": "list", "data": cards})

    async def _tokenize(self, request: Request) -> Response:
        body = await self._body(request)
        if "prompt" in body:
            ids = [1] * body["add_special_tokens"] + list(map(ord, body["prompt"]))
            return JSONResponse({"tokens": ids, "max_model_len": self.max_model_len, "count": len(ids)})
        text = "".join(f"<{m['role']}>{m['content']}\n" for m in body["messages"] if m["role"] in self.roles)
        if body.get("continue_final_message"):
            text = text.removesuffix("\n")
        elif body.get("add_generation_prompt", True):
            text += "<assistant>"
        text += "".join(f"[{tool['function']['name']}]" for tool in body.get("tools") or ())
        text += "".join(f"[{k}={v}]" for k, v in (body.get("chat_template_kwargs") or {}).items())
        text += self.opening or ""
        return JSONResponse({"tokens": list(map(ord, text)), "max_model_len": self.max_model_len, "count": len(text)})

    async def _detokenize(self, request: Request) -> Response:
        body = await self._body(request)
        return JSONResponse({"prompt": "".join(map(chr, body["tokens"]))})

    async def _generate(self, request: Request) -> Response:
        if refused := self._locked(request):
            return refused
        body = await self._body(request)
        self.connections.add(request.client)
        if self.hang:
            await asyncio.sleep(60)
        failure = self.failures.pop(0) if self.failures else self.broken.get(body.get("seed") or 0)
        if failure:
            return JSONResponse(failure.body, failure.status, failure.headers)
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[self.limit_field]
        unknown = [] if self.kind == "vllm" else [name for name in body if name in ("return_token_ids", "top_k")]
        if bad := [name for name in body if name in self.refuses] or [other for _ in (1,) if other in body] or unknown:
            message = f"Unsupported parameter: {bad[0]!r}"
            return JSONResponse({"error": {"message": message, "param": bad[0], "code": "x"}}, 400)
        return _Stream(self, {name: value for name, value in body.items() if name not in self.ignores})

    def _locked(self, request: Request) -> Response | None:
        sent = request.headers.get("authorization")
        self.keys.add(sent)
        if self.key and sent != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {sent}"}}, 401)
        return None

    async def _body(self, request: Request) -> Body:
        body: Body = await request.json()
        self.requests.append((request.url.path, body))
        self.places.append((request.url.path, request.headers.get("traceparent", "")))
        self.states += request.headers.getlist("tracestate")
        return body


class _Stream(Response):
    """The answer of one generating request."""

    def __init__(self, upstream: StandIn, body: Body) -> None:
        self.upstream = upstream
        self.asked = body
        self.chat = "messages" in body
        self.prompt = len(body["messages"]) + 10 if self.chat else len(body["prompt"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.upstream.live += 1
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(self._gone(receive))
        try:
            done, _ = await asyncio.wait([writing, leaving], return_when=asyncio.FIRST_COMPLETED)
            self.upstream.disconnects += writing not in done
            if writing in done:
                writing.result()
        finally:
            self.upstream.live -= 1
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _write(self, send: Send) -> None:
        up = self.upstream
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, frame in enumerate(self._frames()):
            if up.trouble and number == up.after:
                match up.trouble:
                    case "cut":
                        raise RuntimeError("cut")
                    case "hang":
                        await asyncio.sleep(60)
                    case "silence":
                        await send({"type": "http.response.body", "body": b""})
                        return
                    case "garbage":
                        frame = '{"choices": [{"ind'  # noqa: PLW2901
                    case "error":
                        frame = {"error": {"message": "out of memory", "code": 500}}  # noqa: PLW2901
                    case "abort":
                        frame = {"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}  # noqa: PLW2901
            data = f": keep-alive\n\ndata: {frame if isinstance(frame, str) else json.dumps(frame)}\n\n".encode()
            for piece in [data[i : i + 1] for i in range(len(data))] if up.trickle else [data]:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if up.token_s:
                await asyncio.sleep(up.token_s)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _frames(self) -> Iterator[Body]:
        """Every frame, the samples in turn."""
        n = self.asked.get("n", 1)
        options = self.asked.get("stream_options") or {}
        self.continuous = options.get("continuous_usage_stats") and self.upstream.continuous
        self.counts = [0] * n
        samples = [self._sample(i) for i in range(n)]
        while samples:
            for sample in list(samples):
                if (frame := next(sample, None)) is None:
                    samples.remove(sample)
                else:
                    yield frame
        if options.get("include_usage") and self.upstream.usage:
            yield {"choices": [], "usage": self._usage(sum(self.counts), self.upstream.cached)}

    def _usage(self, tokens: int, cached: int | None = None) -> Body:
        details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
        return {"prompt_tokens": self.prompt, "completion_tokens": tokens, **details}

    def _sample(self, index: int) -> Iterator[Body]:
        body = self.asked
        text = self.upstream.reply(body, index)
        stop, ends = None, "stop"
        found = [(at, s) for s in body.get("stop") or [] if (at := text.find(s)) >= 0]
        if found:
            at, stop = min(found)
            text = text[: at + len(stop) if body.get("include_stop_str_in_output") else at]
        limit = body.get(self.upstream.limit_field, 16)
        if len(text) > limit:
            text, stop, ends = text[:limit], None, "length"
        if self.chat:
            yield self._frame(index, {"delta": {"role": "assistant", "content": ""}})
            for char in self.upstream.reasoning:
                yield self._grown(index, {"delta": {"reasoning_content": char}}, 1)
            if self.upstream.calls:
                yield from self._calling(index)
                return
        pieces = [text[i : i + self.upstream.piece] for i in range(0, len(text), self.upstream.piece)]
        self.echo = "".join(map(chr, body["prompt"])) if body.get("echo") and self.upstream.echoes else ""
        for piece in pieces[:-1]:
            yield self._grown(index, self._told(piece), len(piece))
        end = {"finish_reason": ends} | ({} if self.chat else {"stop_reason": stop})
        last = pieces[-1] if pieces else ""
        yield self._grown(index, self._told(last) | end, len(last))

    def _calling(self, index: int) -> Iterator[Body]:
        for number, (name, arguments) in enumerate(self.upstream.calls):
            head = {
                "index": number,
                "id": f"c{number}",
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            yield self._grown(index, {"delta": {"tool_calls": [head]}}, 1)
            for char in arguments:
                part = {"index": number, "function": {"arguments": char}}
                yield self._grown(index, {"delta": {"tool_calls": [part]}}, 1)
        yield self._grown(index, {"delta": {}, "finish_reason": "tool_calls"}, 1)

    def _grown(self, index: int, choice: Body, tokens: int) -> Body:
        self.counts[index] += tokens
        self.upstream.tokens += tokens
        return self._frame(index, choice)

    def _frame(self, index: int, choice: Body) -> Body:
        frame = {"id": "x", "model": "stand-in", "choices": [{"index": index, "finish_reason": None, **choice}]}
        return frame | ({"usage": self._usage(self.counts[index])} if self.continuous else {})

    def _told(self, piece: str) -> Body:
        if self.chat:
            told: Body = {"delta": {"content": piece}}
            if self.asked.get("logprobs"):
                top = [{"token": rival, "logprob": -1.0} for rival in "ab"[: self.asked.get("top_logprobs", 0)]]
                told["logprobs"] = {"content": [{"token": c, "logprob": -0.5, "top_logprobs": top} for c in piece]}
            return told
        told = {"text": piece, "logprobs": None}
        if self.asked.get("return_token_ids"):
            told["token_ids"] = list(map(ord, piece))
        if (k := self.asked.get("logprobs")) is not None:
            echo, self.echo = self.echo, ""
            none = [None] if echo else []
            told["logprobs"] = {
                "tokens": [self._name(c) for c in echo + piece],
                "token_logprobs": none + [-0.5] * len(echo[1:] + piece),
                "top_logprobs": none + [self._top(c, k) for c in echo[1:] + piece],
            }
        return told

    def _name(self, char: str) -> str:
        return f"token_id:{ord(char)}" if self.asked.get("return_tokens_as_token_ids") else char

    def _top(self, char: str, k: int) -> dict[str, float]:
        asked = self.asked.get("logprob_token_ids")
        rivals = map(chr, asked) if asked else "0123456789"[:k]
        return {self._name(char): -9.0} | {self._name(rival): -1.0 - i for i, rival in enumerate(rivals)}
