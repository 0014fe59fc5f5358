"""An engine without a model: deterministic, scripted by a callable, seeded. For tests, demos and load tests.

It speaks in tokens of up to six bytes whose id is their bytes, so any text can be turned into ids and back.
"""

import asyncio
import math
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from strategies.base import Chunk, Message, Prompt, Refused, Sampling, TokenIds, TokenLogprob, text_of
from tts_server.errors import ContextTooLong, EngineUnavailable

_PIECE = re.compile(r"\s?\S{1,5}|\s")
_RARE = -20.0
"""The logprob of a token that the script says nothing of."""


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """What the script sees of one sample."""

    text: str
    """The whole prompt as text: the rendered chat, or the decoded token ids."""
    messages: tuple[Message, ...]
    """Empty when the prompt came as token ids."""
    sampling: Sampling
    index: int
    rng: random.Random
    """Seeded by the request's seed, its prompt and the index; by the engine's where the request has none."""


@dataclass(frozen=True, slots=True)
class FakeReply:
    """What the script says: a text, and if it likes the probabilities of the first token's rivals."""

    text: str
    rivals: Mapping[str, float] = field(default_factory=dict)


Script = Callable[[FakeRequest], str | FakeReply]


def default_script(request: FakeRequest) -> FakeReply:
    """Repeats the question and guesses a digit, mostly the same one; a verdict on request."""
    said = text_of(request.messages[-1]) if request.messages else request.text
    if "Yes or No" in said:
        # What a model gives its next token depends on the prompt alone, not on the seed.
        sure = random.Random(request.text).random()
        labels = [decode((token,)) for token in request.sampling.logprob_token_ids] or ["Yes", "No"]
        rivals = dict(zip(labels, (sure, 1 - sure), strict=False))
        return FakeReply(max(rivals, key=rivals.__getitem__), rivals)
    guess = len(said) % 10 if request.rng.random() < 0.6 else request.rng.randrange(10)
    return FakeReply(f"You said: {said[:200]}\n\nI think about it for a while.\n\nThe answer is \\boxed{{{guess}}}.")


class FakeEngine:
    """Answers from a script.

    Args:
        script: gives each sample's text; an exception that it raises fails that sample.
        model: the name it serves.
        max_model_len: tokens of prompt and completion together.
        continues: whether it takes token ids.
        token_s: seconds that each decoding step takes.
        chunk_tokens: tokens a chunk.
        seed: of the samples whose request has none.
    """

    def __init__(
        self,
        script: Script = default_script,
        *,
        model: str = "fake",
        max_model_len: int = 32768,
        continues: bool = True,
        token_s: float = 0.0,
        chunk_tokens: int = 1,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.max_model_len: int | None = max_model_len
        self.continues = continues
        self.healthy = True
        self.live = 0
        """Samples that are growing now."""
        self.generated = 0
        """Tokens generated since the start, those of aborted samples included."""
        self._script = script
        self._token_s = token_s
        self._chunk_tokens = chunk_tokens
        self._rng = random.Random(seed)
        self._limit = max_model_len

    async def start(self) -> None:
        self.healthy = True

    async def close(self) -> None:
        self.healthy = False

    async def encode(self, prompt: Prompt) -> TokenIds:
        if not self.continues:
            raise Refused("this engine does not take token ids", "tts.strategy")
        return prompt.token_ids or encode(render(prompt))

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if not self.healthy:
            raise EngineUnavailable("The fake engine is closed.")
        if sampling.structured:
            raise Refused("the fake engine cannot constrain its output", "response_format")
        if prompt.token_ids and not self.continues:
            raise Refused("this engine does not take token ids", "tts.strategy")
        text = decode(prompt.token_ids) if prompt.token_ids else render(prompt)
        prompt_tokens = len(prompt.token_ids) or len(encode(text))
        if prompt_tokens >= self._limit:
            raise ContextTooLong(prompt_tokens, self._limit)
        room = min(sampling.max_tokens or self._limit, self._limit - prompt_tokens)
        seed = sampling.seed if sampling.seed is not None else self._rng.getrandbits(64)
        streams = [
            _Stream(FakeRequest(text, prompt.messages, sampling, i, random.Random(f"{seed}|{text}|{i}")), prompt_tokens)
            for i in range(n)
        ]
        self.live += n
        try:
            for stream in streams:
                stream.begin(self._script, room)
            failures = [stream.error for stream in streams if stream.error]
            if len(failures) == n:
                raise failures[0]
            while streams:
                await asyncio.sleep(self._token_s)
                for stream in list(streams):
                    chunk = stream.next(self._chunk_tokens)
                    self.generated += chunk.completion_tokens
                    if chunk.finish_reason:
                        streams.remove(stream)
                        self.live -= 1
                    yield chunk
        finally:
            self.live -= len(streams)


class _Stream:
    """One sample on its way out."""

    def __init__(self, request: FakeRequest, prompt_tokens: int) -> None:
        self.error: Exception | None = None
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._cached = prompt_tokens - 1 if request.index else 0
        self._pieces: list[str] = []
        self._sent = 0
        self._end: Chunk = Chunk(request.index)
        self._rivals: Mapping[str, float] = {}

    def begin(self, script: Script, room: int) -> None:
        sampling, index = self._request.sampling, self._request.index
        try:
            said = script(self._request)
        except Exception as error:
            self.error = error
            self._end = Chunk(index, finish_reason="error", error=error)
            return
        reply = said if isinstance(said, FakeReply) else FakeReply(said)
        text, stop = cut_at_stop(reply.text, sampling)
        self._rivals = reply.rivals
        self._pieces = pieces(text)
        if len(self._pieces) + (stop is None) > room:
            self._pieces = self._pieces[:room]
            self._end = Chunk(index, finish_reason="length")
        elif stop is not None:
            self._end = Chunk(index, finish_reason="stop", stop=stop)
        else:
            self._end = Chunk(index, finish_reason="eos", completion_tokens=1)

    def next(self, size: int) -> Chunk:
        new = self._pieces[self._sent : self._sent + size]
        first, self._sent = self._sent == 0, self._sent + size
        last = self._sent >= len(self._pieces)
        return Chunk(
            self._end.index,
            text="".join(new),
            token_ids=tuple(map(token_id, new)),
            # The end of sequence is a token too: generated, counted, and without text.
            completion_tokens=len(new) + (self._end.completion_tokens if last else 0),
            logprobs=tuple(map(self._logprob, new)) if self._request.sampling.logprobs is not None else (),
            prompt_tokens=self._prompt_tokens if first else 0,
            cached_tokens=self._cached if first else 0,
            finish_reason=self._end.finish_reason if last else None,
            stop=self._end.stop if last else None,
            error=self._end.error if last else None,
        )

    def _logprob(self, piece: str) -> TokenLogprob:
        sampling = self._request.sampling
        known = {token: math.log(max(p, 1e-9)) for token, p in self._rivals.items()}
        own = known.get(piece, math.log(0.5 + self._request.rng.random() / 2))
        known[piece] = own
        likeliest = sorted(known, key=lambda token: -known[token])[: sampling.logprobs]
        wanted = [decode((t,)) for t in sampling.logprob_token_ids] or likeliest
        top = tuple(TokenLogprob(t, known.get(t, _RARE), token_id(t)) for t in wanted)
        return TokenLogprob(piece, own, token_id(piece), top)


def cut_at_stop(text: str, sampling: Sampling) -> tuple[str, str | None]:
    """The text up to the first stop string, and which one it was."""
    found = [(at, stop) for stop in sampling.stop if (at := text.find(stop)) >= 0]
    if not found:
        return text, None
    at, stop = min(found)
    return text[: at + len(stop) if sampling.include_stop else at], stop


def render(prompt: Prompt) -> str:
    """The fake's chat template."""
    turns = "".join(f"<{m['role']}>{text_of(m)}\n" for m in prompt.messages)
    if prompt.template.get("continue_final_message"):
        return turns.removesuffix("\n")
    return turns + "<assistant>" if prompt.template.get("add_generation_prompt", True) else turns


def pieces(text: str) -> list[str]:
    """The text's tokens as text."""
    short: list[str] = []
    for piece in _PIECE.findall(text):
        short.extend(piece if len(piece.encode()) > 6 else [piece])
    return short


def token_id(piece: str) -> int:
    return int.from_bytes(b"\x01" + piece.encode())


def encode(text: str) -> TokenIds:
    return tuple(map(token_id, pieces(text)))


def decode(token_ids: Sequence[int]) -> str:
    return "".join(t.to_bytes((t.bit_length() + 7) // 8).removeprefix(b"\x01").decode() for t in token_ids)
