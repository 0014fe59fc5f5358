"""The words all strategies share: what is asked, what an engine gives, what a search tells."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Message = Mapping[str, Any]
"""One turn of a chat, as OpenAI writes it: `role`, `content`, and what else the template knows."""

TokenIds = tuple[int, ...]

FinishReason = Literal["eos", "stop", "length", "content_filter", "budget", "error"]
"""Why a sample ended: by itself, at a stop string, at its own token limit or the context's end, because the engine's
content filter cut it off, because the request's budget was spent, or because the engine failed."""

Selector = Literal["best", "weighted", "majority"]


class Refused(Exception):
    """The request asks for something this strategy or engine cannot do; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class EngineGone(Exception):
    """The engine is not there, or no longer: it has died, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine continues: a chat that it renders with the model's template, or token ids as they are."""

    messages: tuple[Message, ...] = ()
    token_ids: TokenIds = ()
    """If given, `messages` and `template` are not looked at."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template gets beside the messages: `add_generation_prompt`, `continue_final_message` and the
    template's own variables."""
    text: str = ""
    """What the token ids of a prompt that is no chat say: the question in place of the last user turn."""
    parents: tuple[int, ...] = field(default=(), compare=False)
    """The samples that it continues, or whose texts it shows, by their numbers; only the search's record reads them."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one sample is drawn; None leaves the engine's default."""

    max_tokens: int | None = None
    """Tokens of one sample; None is up to the end of the context."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    """Sample i of a call is drawn with a seed derived from this one and i."""
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    """Whether the stop string stays at the end of the text (a step keeps its separator)."""
    stop_token_ids: TokenIds = ()
    min_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    """None: no logprobs; k: those of the sampled tokens and of the k likeliest (0 to 20)."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens. They are computed anew, whatever is cached of the prompt."""
    logprob_token_ids: TokenIds = ()
    """Report the logprobs of exactly these tokens as `top`, in place of the likeliest ones."""
    bad_words: tuple[str, ...] = ()
    """Words that must not come."""
    allowed_token_ids: TokenIds = ()
    """If given, no other token may come."""
    cache_salt: str | None = None
    """What is cached of the prompt serves calls of the same salt alone."""
    structured: Mapping[str, Any] | None = None
    """OpenAI's `response_format`, for engines that can constrain decoding; vLLM's kinds beside JSON stand under their
    own name, as in `{"type": "choice", "choice": ["yes", "no"]}`, and `structural_tag` under `format`."""
    calling: Mapping[str, Any] | None = None
    """OpenAI's `tools`, `tool_choice` and `parallel_tool_calls`, for engines whose upstream parses calls itself. The
    others know the tools from the prompt's template, and a call that must be made from `structured`."""
    special_tokens: bool = False
    """Whether control tokens stand in the text, for engines whose models tell calls by them."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token and ln of its probability, with its likeliest rivals."""

    token: str
    logprob: float
    token_id: int | None = None
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sample says in the form that its request fixes: a JSON value, or calls of tools."""

    answer: str | None
    """Equal texts are equal answers; None where the sample is not in that form, and has no vote."""
    fault: str | None = None
    """Without an answer: why."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one sample grew by. Summed over a call's chunks, the counts are exact, also when it is cut short."""

    index: int
    """Which of the call's n samples, from 0."""
    text: str = ""
    token_ids: TokenIds = ()
    """The new tokens; empty where the engine does not tell them."""
    completion_tokens: int = 0
    """How many they are."""
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of the prompt's tokens but the first, which nothing comes before: once a sample, on its first chunk."""
    prompt_tokens: int = 0
    """The prompt's tokens, cached ones included: once a sample, as soon as the engine knows them."""
    cached_tokens: int = 0
    """Those that came from the engine's prefix cache: once a sample, as soon as the engine knows them."""
    finish_reason: FinishReason | None = None
    """Only on a sample's last chunk."""
    stop: str | None = None
    """With finish_reason `stop`: which stop string."""
    error: Exception | None = None
    """With finish_reason `error`: what failed."""
    reading: Reading | None = None
    """On a sample's last chunk, where the request fixes the answer's form."""
    refusal: str = ""
    """What the model says in place of an answer, where the engine tells that apart."""
    number: int | None = field(default=None, compare=False)
    """On a sample's first chunk: the sample's number in its search, which the search's account gives."""


@runtime_checkable
class Engine(Protocol):
    """Generates text. One call is one prompt."""

    @property
    def model(self) -> str:
        """The model's name, as clients call it."""
        ...

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and completion together; None where the engine does not tell it."""
        ...

    @property
    def continues(self) -> bool:
        """Whether it takes and gives token ids, as every step search needs."""
        ...

    async def encode(self, prompt: Prompt) -> TokenIds:
        """The prompt's token ids, rendered by the model's own chat template.

        Special tokens in a message's text are encoded as text.

        Raises:
            Refused: the engine does not take token ids.
        """
        ...

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        """Streams n samples of one prompt, interleaved as they grow; each ends with a finish reason.

        Closing the iterator, or cancelling its consumer, aborts what is still running within one engine step.
        A sample that fails while others go on ends with finish reason `error`.

        Raises:
            Refused: a sampling parameter that this engine cannot honour.
            Exception: the whole call failed.
        """
        ...


@dataclass(slots=True)
class Sample:
    """One sample of a call, gathered from its chunks, which are only added to: sums over them are made once."""

    chunks: list[Chunk] = field(default_factory=list)
    opening: str = ""
    """What stands before it in its turn, or in its line of a text: it is no part of it, and is read with it."""
    _summed: int = field(default=0, init=False, repr=False, compare=False)
    """How many of the chunks the sums are of."""
    _text: str = field(default="", init=False, repr=False, compare=False)
    _refusal: str = field(default="", init=False, repr=False, compare=False)
    _token_ids: TokenIds = field(default=(), init=False, repr=False, compare=False)
    _completion_tokens: int = field(default=0, init=False, repr=False, compare=False)

    def _sum(self) -> None:
        texts: list[str] = []
        refusals: list[str] = []
        ids: list[int] = []
        tokens = 0
        for chunk in self.chunks:
            texts.append(chunk.text)
            refusals.append(chunk.refusal)
            ids += chunk.token_ids
            tokens += chunk.completion_tokens
        self._text, self._refusal, self._token_ids = "".join(texts), "".join(refusals), tuple(ids)
        self._completion_tokens, self._summed = tokens, len(self.chunks)

    @property
    def text(self) -> str:
        if self._summed != len(self.chunks):
            self._sum()
        return self._text

    @property
    def refusal(self) -> str:
        if self._summed != len(self.chunks):
            self._sum()
        return self._refusal

    @property
    def withheld(self) -> bool:
        """Whether a content filter cut it off, or the model refused: what it says is no vote for an answer."""
        return bool(self.chunks) and (self.chunks[-1].finish_reason == "content_filter" or bool(self.refusal))

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text as it was streamed."""
        return tuple(chunk.text for chunk in self.chunks if chunk.text)

    @property
    def token_ids(self) -> TokenIds:
        if self._summed != len(self.chunks):
            self._sum()
        return self._token_ids

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(logprob for chunk in self.chunks for logprob in chunk.logprobs)

    @property
    def completion_tokens(self) -> int:
        if self._summed != len(self.chunks):
            self._sum()
        return self._completion_tokens

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while it is still growing."""
        return self.chunks[-1].finish_reason if self.chunks else None

    @property
    def finished(self) -> bool:
        """Whether the model ended it, by itself or at a stop string."""
        return self.finish_reason in ("eos", "stop")

    @property
    def reading(self) -> Reading | None:
        """None where the request leaves the answer's form open, and while it is still growing."""
        return self.chunks[-1].reading if self.chunks else None

    @property
    def number(self) -> int | None:
        """Its number in the search, or that of its last part; None where the account of a search has not seen it."""
        return next((chunk.number for chunk in reversed(self.chunks) if chunk.number is not None), None)

    @property
    def malformed(self) -> bool:
        """Whether it is not in the form that the request fixes."""
        return self.reading is not None and self.reading.answer is None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trajectory that can be returned."""

    sample: Sample
    answer: str | None = None
    """The extracted answer; None where none could be parsed."""
    step_scores: tuple[float, ...] | None = None
    score: float | None = None
    weight: float = 0.0
    """What it counted for in the vote."""
    unscorable: str | None = None
    """Why the reward model cannot score it, where that is so."""

    @classmethod
    def empty(cls) -> "Candidate":
        """What can be returned where the budget left nothing: an unfinished one without text."""
        return cls(Sample([Chunk(0, finish_reason="budget")]))

    @property
    def text(self) -> str:
        return self.sample.text


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of a vote."""

    answer: str
    """As it reads best of what its candidates say: a number where one of them gives it as such."""
    count: int
    weight: float
    forms: frozenset[str] = field(default=frozenset(), compare=False)
    """All that its candidates say."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A line about the search: a candidate finished, a step kept."""

    text: str


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that will be returned for sure, as it grows."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best answer so far."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Final:
    """The end of a search."""

    candidates: tuple[Candidate, ...]
    """Every trajectory that could be returned, in the order of sampling."""
    ranking: tuple[int, ...]
    """Indexes into `candidates`, best first; equal answers stand behind distinct ones."""
    selector: Selector | None = None
    """What chose; None where there was nothing to choose."""
    confidence: float | None = None
    """In [0, 1]: the returned answer's share of the vote, or its score with the selector `best`."""
    votes: tuple[Vote, ...] = ()
    decision: Mapping[str, Any] | None = None
    """Why so much was spent, as JSON, where the strategy decided that; nothing that a client or a model wrote."""

    @property
    def best(self) -> Candidate:
        return self.candidates[self.ranking[0]]

    @property
    def vote(self) -> Vote | None:
        """That of the returned answer."""
        return next((vote for vote in self.votes if self.best.answer in vote.forms), None)

    @property
    def answer(self) -> str | None:
        """The returned answer, as its vote gives it."""
        return self.vote.answer if self.vote else self.best.answer


Event = Progress | Delta | Incumbent | Final


@dataclass(frozen=True, slots=True)
class Task:
    """What one request asks."""

    prompt: Prompt
    sampling: Sampling = Sampling()
    choices: int = 1
    """How many answers the client wants back."""

    @property
    def question(self) -> str:
        """The last user turn's text, or that of a prompt that is no chat: what a reward model scores a solution of."""
        return self.prompt.text or next((text_of(m) for m in reversed(self.prompt.messages) if m["role"] == "user"), "")

    @property
    def opening(self) -> str:
        """What the answer goes on with: the turn that is continued, or the last line of a prompt that is no chat."""
        if self.prompt.template.get("continue_final_message") and self.prompt.messages:
            return text_of(self.prompt.messages[-1])
        return self.prompt.text.rpartition("\n")[2]


def text_of(message: Message) -> str:
    """A message's text, its parts joined."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    parts: Sequence[Mapping[str, Any]] = content
    return "".join(part.get("text", "") for part in parts)
