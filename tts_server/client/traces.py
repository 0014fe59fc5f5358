"""A trace, typed: the record of one search. What is `None` in a redacted one is said of each."""

from typing import Any

from pydantic import Field

from tts_server.client.results import Answer, Result


class TraceUsage(Result):
    """What the search cost, aborted and failed samples included."""

    prompt_tokens: int = 0
    """The request's prompt, once."""
    cached_tokens: int = 0
    """Those of `prompt_tokens` that came from the engine's cache."""
    engine_prompt_tokens: int = 0
    """The prompts of all samples."""
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    prm_tokens: int = 0
    prm_calls: int = 0
    samples: int = 0
    """Solutions that were begun; `Trace.samples` lists their steps, too."""


class TraceError(Result):
    """Why something failed."""

    type: str
    code: str | None = None
    message: str | None = None
    """None in a redacted trace."""


class TraceSample(Result):
    """One sample: a node of the search."""

    id: int
    state: str
    """`returned`, `candidate`, `continued`, `pruned`, `open`, `cut`, `aborted` or `failed`."""
    text: str | None = None
    """None in a redacted trace."""
    score: float | None = None
    """Of the solution that ends with it, as it was scored last."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ended_s: float | None = None
    """Seconds from the request's start; None where it was aborted."""
    finish_reason: str | None = None
    """`eos`, `stop`, `length`, `content_filter`, `budget` or `error`; None where it was aborted."""
    stop: str | None = None
    """The stop string at which it ended; None in a redacted trace."""
    refusal: str | None = None
    """What the model said in place of an answer; None where it did not refuse, and in a redacted trace."""
    error: TraceError | None = None


class TraceCall(Result):
    """One call of the engine."""

    id: int
    started_s: float
    ended_s: float | None = None
    parents: list[int] = Field(default_factory=list)
    """The samples that it goes on from, or that its prompt shows."""
    prompt: int = 0
    """The index of its prompt in `prompts`."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """What differs from the request's."""
    samples: list[TraceSample] = Field(default_factory=list)
    error: TraceError | None = None


class TraceSolution(Result):
    """What the reward model read."""

    sample: int | None = None
    """The sample with which it ends."""
    scores: list[float] | None = None
    """One for each of its steps; None where the call failed or the solution cannot be scored."""
    error: TraceError | None = None
    """Why it cannot be scored, where the others could."""
    steps: list[str] | None = None
    """Where there is no such sample."""


class TraceScoring(Result):
    """One call of the reward model."""

    started_s: float
    ended_s: float | None = None
    tokens: int = 0
    solutions: list[TraceSolution] = Field(default_factory=list)
    error: TraceError | None = None


class TraceEvent(Result):
    """A line of progress, or a best answer so far."""

    kind: str
    """`progress` or `incumbent`."""
    at_s: float
    text: str | None = None
    """Of progress; None in a redacted trace."""
    sample: int | None = None
    """With which an incumbent ends."""
    answer: str | None = None
    score: float | None = None


class TraceVote(Result):
    """One answer of the election."""

    count: int
    weight: float | None = None
    answer: str | None = None
    """None in a redacted trace."""


class TraceCandidate(Result):
    """An answer that could have been returned."""

    sample: int | None = None
    """The sample with which it ends; None where the strategy put it together."""
    score: float | None = None
    step_scores: list[float] | None = None
    weight: float | None = None
    finish_reason: str | None = None
    completion_tokens: int = 0
    answer: str | None = None
    """None in a redacted trace, as its text."""
    text: str | None = None


class TraceFinal(Result):
    """How the search chose."""

    selector: str | None = None
    confidence: float | None = None
    votes: list[TraceVote] = Field(default_factory=list)
    ranking: list[int] = Field(default_factory=list)
    """Indexes into `candidates`, best first."""
    candidates: list[TraceCandidate] = Field(default_factory=list)
    decision: dict[str, Any] | None = None
    """Of `compute_optimal`, as in the answer."""


class TraceInfo(Result):
    """What a search was and what it cost."""

    id: str
    created: float
    """Unix seconds."""
    model: str
    strategy: str
    status: str
    """`done`, `failed` or `cancelled`."""
    content: str
    """`full`, or `redacted`: without what clients and models wrote."""
    request_id: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    prm: str | None = None
    choices: int = 1
    budget: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    """What the request says of it."""
    stop_reason: str | None = None
    """The budget that ended the search; None if it ended by itself."""
    error: TraceError | None = None
    duration_s: float = 0.0
    usage: TraceUsage = Field(default_factory=TraceUsage)


class Feedback(Answer):
    """What was said of an answer, as the server keeps it."""

    created: float
    """Unix seconds."""
    correct: bool | None = None
    score: float | None = None
    comment: str | None = None
    """None where the server keeps no texts."""
    trace_id: str | None = None
    """None within its trace."""


class Trace(Answer, TraceInfo):
    """The record of one search."""

    prompts: list[dict[str, Any]] | None = None
    """The request's own, and each different one that a call had; None in a redacted trace."""
    calls: list[TraceCall]
    scorings: list[TraceScoring]
    events: list[TraceEvent]
    final: TraceFinal | None = None
    """None where the search did not come to an end."""
    feedback: Feedback | None = None
    """What was said of its answer last."""

    @property
    def samples(self) -> list[TraceSample]:
        """Those of all calls; a sample's `id` is its place here."""
        return [sample for call in self.calls for sample in call.samples]


class TraceList(Answer):
    """The newest traces first."""

    data: list[TraceInfo]
    has_more: bool = False
    """Whether there are older ones: ask for those `after` the last one's id."""
