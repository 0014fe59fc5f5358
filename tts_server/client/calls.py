"""What is asked: keywords to HTTP requests. Shared by both clients; sends nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import httpx

from tts_server.client.options import Options, tts_fields
from tts_server.client.reading import answer_in
from tts_server.client.results import (
    ChatResult,
    ModelInfo,
    ModelList,
    Score,
    Scores,
    StrategyInfo,
    StrategyList,
)
from tts_server.client.retries import told
from tts_server.client.traces import Feedback, Trace, TraceList

T_co = TypeVar("T_co", covariant=True)

Messages = str | Sequence[Mapping[str, Any]]
"""A question, or the turns of a chat as OpenAI writes them."""


Aggregation = Literal["last", "min", "prod", "mean"]
Timeout = float | httpx.Timeout
"""Seconds without a byte; for an answer that is not streamed, seconds until it is there. To connect, 5 at most."""

PORTS = range(1, 65536)
DEFAULT_TIMEOUT_S, CONNECT_TIMEOUT_S = 600.0, 5.0
MAX_RETRIES = 2
CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=3.0)
"""The server closes what is idle for 5 s: a request must not meet a connection that is just being closed."""


class ChatFields(TypedDict, total=False):
    """OpenAI's fields of a chat, and vLLM's; each as the server documents it."""

    n: int | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    max_completion_tokens: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    logprobs: bool | None
    top_logprobs: int | None
    logit_bias: Mapping[str, float] | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    user: str | None
    metadata: Mapping[str, str] | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    min_tokens: int | None
    ignore_eos: bool
    stop_token_ids: Sequence[int] | None
    chat_template_kwargs: Mapping[str, Any] | None
    add_generation_prompt: bool
    continue_final_message: bool
    extra_body: Mapping[str, Any]
    """Fields that have no name here."""


class ScoreItem(TypedDict, total=False):
    """One solution of one question: `question` or `messages`, and `steps` or `solution`."""

    question: str
    messages: Sequence[Mapping[str, Any]]
    steps: Sequence[str]
    solution: str


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One request, and how its answer is read."""

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[httpx.Response], T_co]
    body: Mapping[str, Any] | None = None
    timeout: Timeout | None = None
    retried: bool = True

    @property
    def safe(self) -> bool:
        """Whether the server may see it twice."""
        return self.method == "GET"

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request, on this client."""
        timeout = http.timeout if self.timeout is None else _timeout(self.timeout)
        return http.build_request(self.method, self.path, json=self.body, timeout=timeout)


def chat(
    messages: Messages,
    model: str | None,
    tts: Options | None,
    timeout: Timeout | None,
    fields: Mapping[str, Any],
    stream: bool = False,
    live: bool = False,
) -> Call[ChatResult]:
    """`POST /v1/chat/completions`.

    Raises:
        ValueError: there is no model.
    """
    if model is None:
        raise ValueError("model is required: give it to the call or to the client")
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    body: dict[str, Any] = {"model": model, "messages": turns, **fields}
    body |= body.pop("extra_body", {})
    if tts is not None:
        body["tts"] = tts_fields(tts)
    if stream:
        counting = {"continuous_usage_stats": True} if live else {}
        body |= {"stream": True, "stream_options": {"include_usage": True, **counting}}
    return Call("POST", "v1/chat/completions", partial(answer_in, ChatResult), body, timeout)


def score(
    item: Mapping[str, Any], aggregation: Aggregation | None, prm: str | None, timeout: Timeout | None
) -> Call[Score]:
    """`POST /v1/prm/score` for one solution."""
    return Call(
        "POST", "v1/prm/score", partial(answer_in, Score), given(**item, aggregation=aggregation, prm=prm), timeout
    )


def score_many(
    items: Sequence[ScoreItem], aggregation: Aggregation | None, prm: str | None, timeout: Timeout | None
) -> Call[Scores]:
    """`POST /v1/prm/score` for a batch."""
    body = given(batch=list(items), aggregation=aggregation, prm=prm)
    return Call("POST", "v1/prm/score", partial(answer_in, Scores), body, timeout)


def strategies() -> Call[list[StrategyInfo]]:
    """`GET /v1/strategies`."""
    return Call("GET", "v1/strategies", lambda response: answer_in(StrategyList, response).data)


def models() -> Call[list[ModelInfo]]:
    """`GET /v1/models`."""
    return Call("GET", "v1/models", lambda response: answer_in(ModelList, response).data)


def trace(id_: str) -> Call[Trace]:
    """`GET /v1/traces/{id}`.

    Raises:
        ValueError: the id is empty.
    """
    if not id_:
        raise ValueError("id is empty: it is the trace_id of an answer's tts")
    return Call("GET", f"v1/traces/{quote(id_, safe='')}", partial(answer_in, Trace))


def feedback(id_: str, correct: bool | None, score: float | None, comment: str | None) -> Call[Feedback]:
    """`POST /v1/traces/{id}/feedback`.

    Raises:
        ValueError: the id is empty, or it is not said either whether the answer was right or how good it was.
    """
    if (correct is None) == (score is None):
        raise ValueError("give either correct (True or False) or score (0 to 1)")
    path = f"{trace(id_).path}/feedback"
    return Call("POST", path, partial(answer_in, Feedback), given(correct=correct, score=score, comment=comment))


def traces(limit: int | None, after: str | None, strategy: str | None) -> Call[TraceList]:
    """`GET /v1/traces`."""
    query = urlencode(given(limit=limit, after=after, strategy=strategy))
    return Call("GET", f"v1/traces?{query}" if query else "v1/traces", partial(answer_in, TraceList))


def health() -> Call[bool]:
    """`GET /ready`; not repeated, since the answer is what is asked for."""
    return Call("GET", "ready", lambda response: response.is_success, retried=False)


def check(response: httpx.Response) -> None:
    """Raises APIError if a read response is an error."""
    if not response.is_success:
        raise told(response)


def http_options(
    base_url: str, api_key: str | None, timeout: Timeout, headers: Mapping[str, str] | None
) -> dict[str, Any]:
    """What both clients' connections are made with.

    Raises:
        ValueError: the URL is not http or https, or no header can carry the key.
    """
    try:
        url = httpx.URL(base_url.rstrip("/").removesuffix("/v1") + "/")
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url is no URL: {error}; got {base_url!r}") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 1) not in PORTS:
        raise ValueError(f"base_url is an http or https URL, such as http://localhost:8000; got {base_url!r}")
    # The message does not show the key; httpx's own would.
    if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("api_key holds a blank, a line's end or another character that is in no key")
    auth = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {
        "base_url": url,
        "timeout": _timeout(timeout),
        "headers": {**auth, **(headers or {})},
        "limits": CONNECTIONS,
    }


def _timeout(timeout: Timeout) -> httpx.Timeout:
    if isinstance(timeout, httpx.Timeout):
        return timeout
    # A server that is there accepts at once, however long its answers take.
    return httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_S))


def given(**fields: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
