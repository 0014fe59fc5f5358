"""One question to a running server, asked until there is an answer.

Knows which failures pass by themselves. Not which problems are asked, nor where records go.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.running.replies import Reply, reply_of
from bench.stored.manifest import Server, Settings, differences
from tts_server.client import (
    APIError,
    AsyncClient,
    BadRequest,
    ChatResult,
    ConnectionFailed,
    ContextTooLong,
    Delta,
    Final,
    RateLimited,
    ServerError,
    ServerTimedOut,
    TimedOut,
    TTSError,
    Unavailable,
)

OURS = "tts-server"
"""`owned_by` of a server that knows `tts`."""
ATTEMPTS = 3
"""At a question that the server fails on."""
FIRST_S, CAP_S = 0.5, 15.0
"""Pauses between attempts double from the one to the other."""
FAILURES_IN_A_ROW = 5
"""Problems that fail one after the other until the run stops: it is not the problems then."""
CHECK_EVERY_S = 1.0
"""No server takes another's place faster than this without being missed."""


class RunError(Exception):
    """The run cannot go on; the message says what to do. The records so far stand."""


class QuestionFailed(Exception):
    """The server gave no answer to this question, and may give one another time."""


class QuestionTooLong(Exception):
    """This question does not fit the model's context: there is no answer to it."""


@dataclass(slots=True)
class Failures:
    """Problems that got no answer."""

    say: Callable[[str], None]
    """Is told of each."""
    why: dict[str, str] = field(default_factory=dict)
    """By problem."""
    _in_a_row: int = 0

    def answered(self) -> None:
        """A problem got one."""
        self._in_a_row = 0

    def add(self, problem: str, error: QuestionFailed) -> None:
        """Raises RunError where so many in a row have failed that it is not the problems."""
        self.why[problem] = str(error)
        self.say(f"no answer to {problem}: {error}")
        self._in_a_row += 1
        if self._in_a_row == FAILURES_IN_A_ROW:
            raise RunError(
                f"{FAILURES_IN_A_ROW} problems in a row got no answer, the last one because of {error}; what is done "
                "stands, go on with --resume"
            )


class Asker:
    """Asks one server, always with the same settings.

    Args:
        client: does not retry by itself.
        settings: how to ask.
        server: what answers; another one under the same address ends the run.
        url: for messages.
        patience_s: how long a question waits for a server that is not there, or takes no more requests.
    """

    def __init__(self, client: AsyncClient, settings: Settings, server: Server, url: str, patience_s: float) -> None:
        self._client = client
        self._settings = settings
        self._server = server
        self._url = url
        self._patience_s = patience_s
        self._tts = tts_of(settings, server)
        self._checked_at = time.monotonic()

    async def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """Returns the server's answer, after as many attempts as make sense.

        Raises:
            QuestionTooLong: there can be none.
            QuestionFailed: there is none now.
            RunError: no question would be answered.
        """
        failures, gone_at, pause_s = 0, None, FIRST_S
        while True:
            try:
                if gone_at is not None or time.monotonic() - self._checked_at >= CHECK_EVERY_S:
                    await self._same_server()
                return await self._once(messages)
            except TTSError as error:
                why = f"{type(error).__name__}: {error}"
                if passes(error):
                    gone_at = gone_at or time.monotonic()
                    if time.monotonic() - gone_at > self._patience_s:
                        raise RunError(
                            f"{self._url} has not been answering for {self._patience_s:g} s: {why}"
                        ) from error
                elif not isinstance(error, ServerError | TimedOut):
                    raise _hopeless(error) from error
                else:
                    failures += 1
                    if failures == ATTEMPTS or isinstance(error, ServerTimedOut | TimedOut):
                        raise QuestionFailed(why) from error
                wait_s = getattr(error, "retry_after_s", None)
            await asyncio.sleep(min(CAP_S, wait_s or pause_s))
            pause_s *= 2

    async def _same_server(self) -> None:
        """Raises RunError if another server has taken the place of the one that the run began with."""
        _, server = await describe(self._client, self._url, self._settings.model)
        self._checked_at = time.monotonic()
        if changed := differences(self._server, server):
            raise RunError(f"another server answers at {self._url} now; before and now: {'; '.join(changed)}")

    async def _once(self, messages: Sequence[dict[str, str]]) -> Reply:
        settings, began = self._settings, time.perf_counter()
        fields, search = dict(settings.sampling), self._tts
        first: float | None = None
        result: ChatResult | None = None
        if settings.stream:
            asked = self._client.stream(messages, model=settings.model, tts=search, extra_body=fields)
            async with asked as events:
                async for event in events:
                    if isinstance(event, Delta) and first is None:
                        first = time.perf_counter() - began
                    result = event.result if isinstance(event, Final) else None
        else:
            result = await self._client.chat(messages, model=settings.model, tts=search, extra_body=fields)
        latency_s = time.perf_counter() - began
        if result is None:
            raise RunError(f"{self._url} ended a stream without an answer")
        if self._tts and result.tts is None:
            raise RunError(
                f"{self._url} does not know strategies: it left the request's `tts` out of account. To measure "
                "it as it is, leave out --strategy and --option"
            )
        if not result.choices:
            raise RunError(f"{self._url} answered without choices: {str(result.raw)[:300]}")
        return await reply_of(result, latency_s, first)


def tts_of(settings: Settings, server: Server) -> dict[str, Any] | None:
    """The request's `tts`; None in a plain request to a server that may not know it."""
    if settings.strategy is None and not settings.options and server.name != OURS:
        return None
    strategy = {"strategy": settings.strategy} if settings.strategy else {}
    return {**settings.options, **strategy, "return_candidates": True}


def passes(error: TTSError) -> bool:
    """Whether a failure passes when the server is back, or less busy."""
    if isinstance(error, TimedOut):
        return isinstance(error.__cause__, httpx.ConnectTimeout)
    if isinstance(error, ServerError) and error.status == 502:
        return True
    return isinstance(error, ConnectionFailed | Unavailable | RateLimited)


def _hopeless(error: TTSError) -> Exception:
    # Not every server has a code for it.
    if isinstance(error, ContextTooLong) or (isinstance(error, BadRequest) and "maximum context length" in str(error)):
        return QuestionTooLong(str(error))
    if isinstance(error, APIError):
        field = f" ({error.param})" if error.param else ""
        return RunError(f"the server refuses the request{field}: {error}")
    return RunError(f"the server does not speak this API: {error}")


async def describe(client: AsyncClient, url: str, model: str | None) -> tuple[str, Server]:
    """The model to ask, the first one if None, and what the server tells about itself.

    Raises:
        TTSError: it does not answer.
        RunError: it has no such model.
    """
    listed = await client.models()
    ids = [info.id for info in listed]
    name = model or next(iter(ids), None)
    info = next((info for info in listed if info.id == name), None)
    if name is None or info is None:
        raise RunError(f"{url} has no model {name!r}; it has {', '.join(ids) or 'none'}")
    told = info.model_extra or {}
    return name, Server(
        name=info.owned_by or None,
        version=told.get("version") or (await _version(url) if info.owned_by != OURS else None),
        engine=told.get("engine"),
        model=info.root or name,
        max_model_len=info.max_model_len,
        prm=told.get("prm"),
    )


async def _version(url: str) -> str | None:
    """What vLLM tells at its root; None of a server that does not."""
    root = url.rstrip("/").removesuffix("/v1")
    try:
        async with httpx.AsyncClient(timeout=10) as http:
            told = (await http.get(f"{root}/version")).json()
    except (httpx.HTTPError, ValueError):
        return None
    version = told.get("version") if isinstance(told, dict) else None
    return version if isinstance(version, str) else None
