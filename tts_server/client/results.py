"""What comes back, typed. Fields that a newer server adds are kept as attributes and in `raw`."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr


class Result(BaseModel):
    """A part of a body."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Answer(Result):
    """A whole body."""

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)
    _request_id: str | None = PrivateAttr(None)

    @property
    def raw(self) -> dict[str, Any]:
        """The body as it came; of a stream, the body that its chunks add up to."""
        return self._raw

    @property
    def request_id(self) -> str | None:
        """Names the request in the server's log."""
        return self._request_id

    def came_as(self, body: dict[str, Any], request_id: str | None) -> Self:
        """Keeps what it was read from."""
        self._raw, self._request_id = body, request_id
        return self


class PromptTokens(Result):
    """Of the prompt's tokens."""

    cached_tokens: int = 0


class CompletionTokens(Result):
    """Of the generated tokens."""

    reasoning_tokens: int = 0
    """Those that are not in the returned answer."""


class Usage(Result):
    """OpenAI's usage: the client's prompt once, every generated token."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokens | None = None
    completion_tokens_details: CompletionTokens | None = None


class SearchUsage(Result):
    """What the whole search cost."""

    engine_prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    prm_tokens: int = 0
    prm_calls: int = 0
    wall_s: float = 0.0


class Vote(Result):
    """One answer of the election."""

    answer: str | None = None
    count: int = 0
    weight: float | None = None


class Candidate(Result):
    """One finished attempt; sent with `return_candidates`."""

    text: str = ""
    answer: str | None = None
    score: float | None = None
    step_scores: list[float] | None = None
    weight: float | None = None
    logprob: float | None = None
    """ln of the probability of its tokens, where the request or the strategy looked at logprobs; divided by
    `completion_tokens`, their mean."""
    finish_reason: str | None = None
    completion_tokens: int = 0
    refusal: str | None = None
    """What the model said in place of an answer."""
    error: str | None = None


class Search(Result):
    """The `tts` object: what was decided, why, and what it cost."""

    strategy: str
    trace_id: str | None = None
    selector: str | None = None
    answer: str | None = None
    score: float | None = None
    confidence: float | None = None
    stop_reason: str | None = None
    """The budget that ended the search; None if it ended by itself."""
    samples: int = 0
    """Solutions that were begun, as `budget.max_samples` counts them."""
    growing: int | None = None
    """Those that have not ended, of a search under way."""
    votes: list[Vote] = Field(default_factory=list)
    candidates: list[Candidate] = Field(default_factory=list)
    """Empty unless `return_candidates` was asked for."""
    decision: dict[str, Any] | None = None
    """Of `compute_optimal`: how hard the question was found, what was spent on it, and why."""
    usage: SearchUsage = Field(default_factory=SearchUsage)


class TokenLogprob(Result):
    """A token that was, or could have been, generated."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list["TokenLogprob"] = Field(default_factory=list)


class Logprobs(Result):
    """Of a choice's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class Function(Result):
    """What a tool call calls."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(Result):
    """A call that the model wants made."""

    id: str
    function: Function
    type: str = "function"


class Message(Result):
    """The assistant's turn."""

    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    """A thinking model's thoughts; of a stream, its progress too."""
    tool_calls: list[ToolCall] | None = None


class Choice(Result):
    """One returned answer."""

    index: int
    message: Message
    finish_reason: str | None = None
    """`stop`, `length`, `tool_calls`, `content_filter`; None of a stream that broke."""
    logprobs: Logprobs | None = None


class ChatResult(Answer):
    """A chat's answer."""

    id: str
    model: str
    created: int
    choices: list[Choice]
    usage: Usage | None = None
    tts: Search | None = None
    """None of a server that is not this one."""

    @property
    def text(self) -> str:
        """The first choice's text; empty if it has none."""
        return (self.choices[0].message.content or "") if self.choices else ""


class ScoreUsage(Result):
    """What scoring cost."""

    prm_tokens: int = 0
    prm_calls: int = 0


class Score(Answer):
    """A solution's score, and that of each of its steps."""

    scores: list[float]
    score: float
    aggregation: str
    model: str
    usage: ScoreUsage | None = None
    """None in a list, which has one usage for all."""


class Scores(Answer):
    """Several solutions' scores, in the order they were asked for."""

    data: list[Score]
    model: str
    usage: ScoreUsage


class StrategyInfo(Result):
    """A strategy that `tts.strategy` can name."""

    id: str
    description: str
    paper: str | None = None
    uses_prm: bool = False
    available: bool = True
    """False if this server's engine cannot run it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """JSON schema."""


class ModelInfo(Result):
    """What `model` can name."""

    id: str
    created: int = 0
    owned_by: str = ""
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class StrategyList(Answer):
    """Every strategy of a server."""

    data: list[StrategyInfo]


class ModelList(Answer):
    """Every model of a server."""

    data: list[ModelInfo]
