"""The client for code with `await`; `client` is its twin."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from tts_server.client import calls
from tts_server.client.calls import (
    DEFAULT_TIMEOUT_S,
    MAX_RETRIES,
    Aggregation,
    Call,
    ChatFields,
    Messages,
    ScoreItem,
    Timeout,
)
from tts_server.client.errors import Unavailable
from tts_server.client.options import Options
from tts_server.client.results import ChatResult, ModelInfo, Score, Scores, StrategyInfo
from tts_server.client.retries import Attempts
from tts_server.client.streams import AsyncChatStream
from tts_server.client.traces import Feedback, Trace, TraceList

T = TypeVar("T")


class AsyncClient:
    """A server, for code with `await`: the calls of `Client`. Cancelling a call ends the server's work.

    >>> async def main():
    ...     async with AsyncClient(base_url, model="fake") as client:
    ...         questions = ["What is 1 + 1?", "What is 2 + 2?"]
    ...         results = await asyncio.gather(*(client.chat(question, seed=1) for question in questions))
    ...         print([result.choices[0].finish_reason for result in results])
    >>> asyncio.run(main())
    ['stop', 'stop']

    Args:
        base_url: of the server, with or without `/v1`.
        api_key: goes to this server and nowhere else.
        model: of the calls that name none.
        timeout: seconds without a byte; for answers that are not streamed, seconds until they are there.
        max_retries: how often a request is sent again that the server cannot have begun, or invites to repeat.
        headers: sent with every request.

    Raises:
        ValueError: `base_url` is not an http or https URL, or no header can carry the key.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self._max_retries = max_retries
        self._http = httpx.AsyncClient(**calls.http_options(base_url, api_key, timeout, headers))

    async def chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tts: Options | None = None,
        timeout: Timeout | None = None,
        **fields: Unpack[ChatFields],
    ) -> ChatResult:
        """As `Client.chat`."""
        return await self._ask(calls.chat(messages, model or self.model, tts, timeout, fields))

    def stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tts: Options | None = None,
        timeout: Timeout | None = None,
        live: bool = False,
        **fields: Unpack[ChatFields],
    ) -> AsyncChatStream:
        """As `Client.stream`, for `async with` and `async for`."""
        call = calls.chat(messages, model or self.model, tts, timeout, fields, stream=True, live=live)
        return AsyncChatStream(lambda: self._send(call, stream=True))

    async def score(
        self,
        question: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        steps: Sequence[str] | None = None,
        solution: str | None = None,
        aggregation: Aggregation | None = None,
        prm: str | None = None,
        timeout: Timeout | None = None,
    ) -> Score:
        """As `Client.score`."""
        item = calls.given(question=question, messages=messages, steps=steps, solution=solution)
        return await self._ask(calls.score(item, aggregation, prm, timeout))

    async def score_many(
        self,
        items: Sequence[ScoreItem],
        *,
        aggregation: Aggregation | None = None,
        prm: str | None = None,
        timeout: Timeout | None = None,
    ) -> Scores:
        """As `Client.score_many`."""
        return await self._ask(calls.score_many(items, aggregation, prm, timeout))

    async def strategies(self) -> list[StrategyInfo]:
        """As `Client.strategies`."""
        return await self._ask(calls.strategies())

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return await self._ask(calls.models())

    async def trace(self, id: str) -> Trace:  # noqa: A002  the name in the path
        """As `Client.trace`."""
        return await self._ask(calls.trace(id))

    async def feedback(
        self, trace_id: str, *, correct: bool | None = None, score: float | None = None, comment: str | None = None
    ) -> Feedback:
        """As `Client.feedback`."""
        return await self._ask(calls.feedback(trace_id, correct, score, comment))

    async def traces(
        self, *, limit: int | None = None, after: str | None = None, strategy: str | None = None
    ) -> TraceList:
        """As `Client.traces`."""
        return await self._ask(calls.traces(limit, after, strategy))

    async def health(self) -> bool:
        """As `Client.health`."""
        try:
            return await self._ask(calls.health())
        except Unavailable:
            return False

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[T]) -> T:
        return call.read(await self._send(call))

    async def _send(self, call: Call[Any], stream: bool = False) -> httpx.Response:
        attempts = Attempts(self._max_retries if call.retried else 0, call.safe)
        while True:
            try:
                response = await self._http.send(call.request(self._http), stream=stream)
                if response.is_success:
                    return response
                async with aclosing(response):
                    await response.aread()
                pause_s = attempts.after_status(response)
            except httpx.HTTPError as error:
                pause_s = attempts.after_failure(error)
            await asyncio.sleep(pause_s)
