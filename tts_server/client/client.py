"""The client for code without `await`; `async_client` is its twin."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
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
from tts_server.client.streams import ChatStream
from tts_server.client.traces import Feedback, Trace, TraceList

T = TypeVar("T")


class Client:
    """A server, for code without `await`. May be shared by threads.

    >>> with Client(base_url, model="fake") as client:
    ...     result = client.chat("What is 2 + 2?", tts="self_consistency", seed=1)
    ...     print(result.text.splitlines()[-1], result.tts.samples)
    The answer is \\boxed{4}. 8

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
        self._http = httpx.Client(**calls.http_options(base_url, api_key, timeout, headers))

    def chat(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tts: Options | None = None,
        timeout: Timeout | None = None,
        **fields: Unpack[ChatFields],
    ) -> ChatResult:
        """Answers a chat.

        Raises:
            TTSError: the server refused or failed, or there was none; see `errors`.
            ValueError: there is no model.
        """
        return self._ask(calls.chat(messages, model or self.model, tts, timeout, fields))

    def stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        tts: Options | None = None,
        timeout: Timeout | None = None,
        live: bool = False,
        **fields: Unpack[ChatFields],
    ) -> ChatStream:
        """Answers a chat event by event; closing the stream ends the server's work.

        With `live`, a `Progress` comes at least once a second, with what the search has done so far.

        >>> with client.stream("What is 2 + 2?", model="fake") as stream:
        ...     text = "".join(event.text for event in stream if isinstance(event, Delta))
        >>> text == stream.result().text
        True

        Raises:
            ValueError: there is no model.
        """
        call = calls.chat(messages, model or self.model, tts, timeout, fields, stream=True, live=live)
        return ChatStream(lambda: self._send(call, stream=True))

    def score(
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
        """Scores the steps of one solution.

        >>> client.score("What is 2 + 2?", steps=["2 + 2 = 4", "So it is 4."]).aggregation
        'last'
        """
        item = calls.given(question=question, messages=messages, steps=steps, solution=solution)
        return self._ask(calls.score(item, aggregation, prm, timeout))

    def score_many(
        self,
        items: Sequence[ScoreItem],
        *,
        aggregation: Aggregation | None = None,
        prm: str | None = None,
        timeout: Timeout | None = None,
    ) -> Scores:
        """Scores several solutions in one call."""
        return self._ask(calls.score_many(items, aggregation, prm, timeout))

    def strategies(self) -> list[StrategyInfo]:
        """What `tts` can name, with the schema of each one's options."""
        return self._ask(calls.strategies())

    def models(self) -> list[ModelInfo]:
        """What `model` can name."""
        return self._ask(calls.models())

    def trace(self, id: str) -> Trace:  # noqa: A002  the name in the path
        """The record of one search.

        >>> trace = client.trace(client.chat("What is 2 + 2?", model="fake", tts="best_of_n").tts.trace_id)
        >>> trace.strategy, trace.status, len(trace.samples)
        ('best_of_n', 'done', 8)

        Raises:
            NotFound: the server has none of this id, or it is of another key.
        """
        return self._ask(calls.trace(id))

    def feedback(
        self, trace_id: str, *, correct: bool | None = None, score: float | None = None, comment: str | None = None
    ) -> Feedback:
        """Says of an answer whether it was right, or how good from 0 to 1; what is said last counts.

        Raises:
            NotFound: the server has no trace of this id, or it is of another key.
            ValueError: neither `correct` nor `score` is given, or both are.
        """
        return self._ask(calls.feedback(trace_id, correct, score, comment))

    def traces(self, *, limit: int | None = None, after: str | None = None, strategy: str | None = None) -> TraceList:
        """The newest searches that the server remembers, those before `after` if given: what each was and cost."""
        return self._ask(calls.traces(limit, after, strategy))

    def health(self) -> bool:
        """Whether the server answers requests: its engine is up, and it is not going down.

        Raises:
            ConnectionFailed: there is no server.
        """
        try:
            return self._ask(calls.health())
        except Unavailable:
            return False

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: Call[T]) -> T:
        return call.read(self._send(call))

    def _send(self, call: Call[Any], stream: bool = False) -> httpx.Response:
        attempts = Attempts(self._max_retries if call.retried else 0, call.safe)
        while True:
            try:
                response = self._http.send(call.request(self._http), stream=stream)
                if response.is_success:
                    return response
                with closing(response):
                    response.read()
                pause_s = attempts.after_status(response)
            except httpx.HTTPError as error:
                pause_s = attempts.after_failure(error)
            time.sleep(pause_s)
