"""An upstream on which everything goes wrong that can, and which knows exactly what it generated, and for whom.

It speaks as `vllm serve` does, in tokens of one character whose id is its code point. What goes wrong with a call is
what the mark in its prompt says (`kinds.Mark`); whether it does is drawn from the seed.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from bench.studies.faults.kinds import BEFORE, Fault, Mark, mark_in
from bench.studies.faults.speech import Json, chunk, limited, logprobs, rendered, solution
from bench.studies.faults.wire import Connection, Exchange

MODEL = "stand-in"
MAX_MODEL_LEN = 65536
_LATEST_BREAK = 2
"""Frames before an answer breaks, at most; a shorter one breaks at its end."""
LONG, LONG_FRAME_S = 6000, 0.4
"""Tokens of a long answer, and the seconds between two of its frames."""
_LONGEST_PIECE, _LONG_PIECE = 24, 200
_TRICKLE = 9
"""Bytes."""
_DONE = b"data: [DONE]\n\n"

Say = Callable[[random.Random], str]


@dataclass(slots=True)
class Count:
    """What was generated for one request."""

    calls: int = 0
    tokens: int = 0
    """Of frames that were written whole, and that whoever asked has read."""
    unread: int = 0
    """Of those that may not have been read: whoever asked went away, or the connection was reset."""
    broken: int = 0
    """Of `tokens`, those behind which this end closed the connection: whoever gave the call up at that moment may not
    have read them."""
    prm_tokens: int = 0
    """Of verdicts, prompts included, in the same kinds."""
    prm_unread: int = 0
    prm_broken: int = 0


@dataclass(slots=True)
class _Answer:
    """What one call has generated so far."""

    tokens: int = 0
    prm_tokens: int = 0


class FaultyUpstream:
    """The stand-in.

    Args:
        seed: of what goes wrong and of what it says.
        say: a sample's text.
        frame_s: seconds between two frames.
    """

    def __init__(self, seed: int = 0, *, say: Say | None = None, frame_s: float = 0.0) -> None:
        self.counts: dict[int, Count] = defaultdict(Count)
        self.live = 0
        """Generating calls under way."""
        self.befallen: dict[Fault, int] = defaultdict(int)
        """How often each fault came."""
        self._seed = seed
        self._say = say or solution
        self._frame_s = frame_s
        self._opened: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self._opened)

    @property
    def busy(self) -> int:
        """Connections with an answer under way."""
        return sum(connection.busy for connection in self._opened)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Its URL while it serves on this machine, in this event loop."""
        await self.rise()
        try:
            yield f"http://127.0.0.1:{self._port}"
        finally:
            await self.die()

    async def rise(self) -> None:
        """Listens, where it did before."""
        loop = asyncio.get_running_loop()
        make = lambda: Connection(self._handle, self._opened)  # noqa: E731
        self._server = await loop.create_server(make, "127.0.0.1", self._port, backlog=2048)
        self._port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Closes all connections at once and listens no more."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._opened):
            connection.reset()
        while self._opened:  # noqa: ASYNC110  connections set no event
            await asyncio.sleep(0)
        await self._server.wait_closed()
        self._server = None

    async def _handle(self, exchange: Exchange) -> None:
        match exchange.method, exchange.path.removeprefix("/v1"):
            case "GET", "/models":
                card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "x", "max_model_len": MAX_MODEL_LEN}
                exchange.whole(200, {"object": "list", "data": [card]})
            case "POST", "/tokenize":
                await self._tokenize(exchange)
            case "POST", "/completions":
                await self._complete(exchange)
            case _:
                exchange.whole(404, {"error": {"message": "no such path"}})

    async def _tokenize(self, exchange: Exchange) -> None:
        body = exchange.body
        text = body.get("prompt") or rendered(body)
        if await self._fails(exchange, self._fault(mark_in(text))):
            return
        ids = list(map(ord, text))
        exchange.whole(200, {"tokens": ids, "count": len(ids), "max_model_len": MAX_MODEL_LEN})

    async def _complete(self, exchange: Exchange) -> None:
        mark = mark_in("".join(map(chr, exchange.body["prompt"])))
        fault = self._fault(mark)
        self.live += 1
        try:
            if not await self._fails(exchange, fault):
                await self._stream(exchange, mark, fault)
        finally:
            self.live -= 1

    def _fault(self, mark: Mark) -> Fault:
        count = self.counts[mark.number]
        count.calls += 1
        return mark.fault if mark.befalls(self._seed, count.calls) else "none"

    async def _fails(self, exchange: Exchange, fault: Fault) -> bool:
        """Whether a fault comes before any answer."""
        if fault not in BEFORE:
            return False
        self.befallen[fault] += 1
        again = "retry-after: 0\r\n"
        match fault:
            case "refuse":
                exchange.close()
            case "hang":
                await asyncio.Event().wait()
            case "busy":
                exchange.whole(429, {"error": {"message": "too many"}}, again)
            case "error":
                exchange.whole(500, {"error": {"message": "out of memory"}}, again)
            case "unavailable":
                exchange.whole(503, {"error": {"message": "not now"}}, again)
            case "page":
                exchange.whole(200, b"<html><body>Welcome!</body></html>", media_type="text/html")
            case _:
                exchange.raw(b"\x16\x03\x01\x02 this is no HTTP\r\n\r\n")
                exchange.close()
        return True

    async def _stream(self, exchange: Exchange, mark: Mark, fault: Fault) -> None:
        body, count, made = exchange.body, self.counts[mark.number], _Answer()
        exchange.on_unread = lambda: _move(made, count)
        exchange.begin()
        breaks_at = random.Random(f"{self._seed}|{mark}|{count.calls}").randrange(_LATEST_BREAK + 1)
        verdict = body.get("max_tokens") == 1 and "logprob_token_ids" in body
        for number, (frame, tokens) in enumerate(self._frames(body, mark, count.calls, fault)):
            data = b"data: " + orjson.dumps(frame) + b"\n\n"
            if number == breaks_at and await self._breaks(exchange, fault, data):
                count.broken += made.tokens
                count.prm_broken += made.prm_tokens
                return
            await self._send(exchange, data, trickles=fault == "trickle")
            # Before anything is awaited: what is written is generated.
            if verdict:
                made.prm_tokens += (added := tokens and tokens + len(body["prompt"]))
                count.prm_tokens += added
            else:
                made.tokens += tokens
                count.tokens += tokens
            await asyncio.sleep(LONG_FRAME_S if fault == "long" else self._frame_s)
        if number < breaks_at and await self._breaks(exchange, fault, _DONE):
            count.broken += made.tokens
            count.prm_broken += made.prm_tokens
            return
        exchange.raw(chunk(_DONE))
        exchange.end()

    async def _send(self, exchange: Exchange, data: bytes, *, trickles: bool) -> None:
        framed = chunk(data)
        while trickles and len(framed) > _TRICKLE:
            exchange.raw(framed[:_TRICKLE])
            framed = framed[_TRICKLE:]
            await asyncio.sleep(0)
        exchange.raw(framed)

    async def _breaks(self, exchange: Exchange, fault: Fault, data: bytes) -> bool:
        """Whether a fault comes in the middle of an answer, at this frame."""
        if fault in ("none", "trickle", "unlabelled", "long"):
            return False
        self.befallen[fault] += 1
        half = chunk(data)[: len(data) // 2]
        match fault:
            case "stall":
                exchange.raw(half)
                await asyncio.Event().wait()
            case "cut":
                exchange.raw(half)
            case "reset":
                exchange.raw(half)
                exchange.reset()
            case "garbage":
                exchange.raw(chunk(b'data: {"choices": [{"ind\xff\xfe\x00\n\n'))
            case "types":
                exchange.raw(
                    chunk(b'data: {"choices": [{"index": 0, "text": [1], "token_ids": "no", "usage": 7}]}\n\n')
                )
            case "report":
                exchange.raw(chunk(b'data: {"error": {"message": "the engine died", "code": 500}}\n\n'))
            case _:
                exchange.raw(chunk(_DONE))
                exchange.end()
                return True
        exchange.close()
        return True

    def _frames(self, body: Json, mark: Mark, call: int, fault: Fault) -> Iterator[tuple[Json, int]]:
        """Every frame with its tokens, the samples in turn."""
        n, total = body.get("n") or 1, 0
        samples = [self._sample(body, i, random.Random(f"{self._seed}|{mark}|{call}|{i}"), fault) for i in range(n)]
        while samples:
            for sample in list(samples):
                if (frame := next(sample, None)) is None:
                    samples.remove(sample)
                else:
                    total += frame[1]
                    yield frame
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": total}
            yield {"id": "x", "object": "text_completion", "choices": [], "usage": usage}, 0

    def _sample(self, body: Json, index: int, rng: random.Random, fault: Fault) -> Iterator[tuple[Json, int]]:
        text, ends, stop = limited("long " * (LONG // 5) if fault == "long" else self._say(rng), body)
        while True:
            size = _LONG_PIECE if fault == "long" else rng.randint(1, _LONGEST_PIECE)
            piece, text = text[:size], text[size:]
            choice: Json = {"index": index, "text": piece, "token_ids": list(map(ord, piece)), "finish_reason": None}
            choice["logprobs"] = None if fault == "unlabelled" else logprobs(piece, body, rng)
            if not text:
                choice |= {"finish_reason": ends, "stop_reason": stop}
            yield {"id": "x", "object": "text_completion", "choices": [choice]}, len(piece)
            if not text:
                return


def _move(made: _Answer, count: Count) -> None:
    """What a call has generated was perhaps not read."""
    count.tokens -= made.tokens
    count.unread += made.tokens
    count.prm_tokens -= made.prm_tokens
    count.prm_unread += made.prm_tokens
    made.tokens = made.prm_tokens = 0
