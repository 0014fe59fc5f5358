"""An engine without a model: deterministic, scripted by a callable, seeded. For tests, demos and load tests.

The script is what it would say if nothing but the sampling's limits had an influence. `top_k`, `temperature` and the
penalties are the script's to look at; it cannot be constrained, so the script gives what `structured` asks for.
"""

import asyncio
import json
import math
import random
from collections.abc import AsyncGenerator
from itertools import cycle, islice

from strategies.core.contracts import Chunk, Message, Prompt, Refused, Sampling, TokenIds, TokenLogprob, text_of
from tts_server.engines.fake_parts.batch import Batch
from tts_server.engines.fake_parts.script import FakeReply, FakeRequest, Script, default_script
from tts_server.engines.fake_parts.tokens import FakeTokenizer, decode, encode, pieces, prompt_logprobs, token_id
from tts_server.errors import ContextTooLong, EngineUnavailable

__all__ = [
    "FakeEngine",
    "FakeReply",
    "FakeRequest",
    "Script",
    "decode",
    "default_script",
    "encode",
    "pieces",
    "render",
    "token_id",
]

_BIAS = 100
"""A `logit_bias` of this leaves only that token, and of its negative all but it; the rest is left to the script."""
_RARE = -20.0
"""The logprob of a token that the script says nothing of."""


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
        opening: the thought's opening with which its chat template ends.
        slots: samples that it grows at once; further ones wait inside of it, first come. None: all.
    """

    tool_format = "hermes"
    constrains = True
    calls_itself = False

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
        opening: str = "",
        slots: int | None = None,
    ) -> None:
        self.model = model
        self.max_model_len: int | None = max_model_len
        self.continues = continues
        self.healthy = True
        self._tokenizer = FakeTokenizer()
        self.live = 0
        """Samples that are growing now."""
        self.generated = 0
        """Tokens generated since the start, those of aborted samples included."""
        self._script = script
        self._token_s = token_s
        self._chunk_tokens = chunk_tokens
        self._rng = random.Random(seed)
        self._limit = max_model_len
        self._opening = opening
        self.thinks = bool(opening)
        self.slots = slots
        self._batch = Batch[_Stream](slots)

    @property
    def tokenizer(self) -> FakeTokenizer:
        if not self.continues:
            raise Refused("this engine does not take token ids", "prompt")
        return self._tokenizer

    async def start(self) -> None:
        self.healthy = True

    async def close(self) -> None:
        self.healthy = False

    async def encode(self, prompt: Prompt) -> TokenIds:
        if not self.continues:
            raise Refused("this engine does not take token ids", "tts.strategy")
        return prompt.token_ids or encode(render(prompt, self._opening))

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        begins = prompt.template.get("add_generation_prompt", not prompt.template.get("continue_final_message"))
        return self._opening if begins and not sampling.structured else ""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if not self.healthy:
            raise EngineUnavailable("The fake engine is closed.")
        if prompt.token_ids and not self.continues:
            raise Refused("this engine does not take token ids", "tts.strategy")
        text = decode(prompt.token_ids) if prompt.token_ids else render(prompt, self._opening)
        prompt_ids = prompt.token_ids or encode(text)
        prompt_tokens = len(prompt_ids)
        if prompt_tokens >= self._limit:
            raise ContextTooLong(prompt_tokens, self._limit)
        check(sampling)
        room = min(sampling.max_tokens or self._limit, self._limit - prompt_tokens)
        seed = sampling.seed if sampling.seed is not None else self._rng.getrandbits(64)
        tools = tuple(prompt.template.get("tools") or ())
        k = sampling.prompt_logprobs
        told = () if k is None else prompt_logprobs(prompt_ids, k)
        streams = [
            _Stream(
                FakeRequest(text, prompt.messages, sampling, i, random.Random(f"{seed}|{text}|{i}"), tools),
                prompt_tokens,
                told,
            )
            for i in range(n)
        ]
        self.live += n
        try:
            for stream in streams:
                stream.begin(self._script, room)
                self._batch.enter(stream)
            failures = [stream.error for stream in streams if stream.error]
            if len(failures) == n:
                raise failures[0]
            while streams:
                await asyncio.sleep(self._token_s)
                for stream in [stream for stream in streams if stream in self._batch.growing]:
                    chunk = stream.next(self._chunk_tokens)
                    self.generated += chunk.completion_tokens
                    if chunk.finish_reason:
                        streams.remove(stream)
                        self._batch.leave(stream)
                        self.live -= 1
                    yield chunk
        finally:
            self.live -= len(streams)
            for stream in streams:
                self._batch.leave(stream)


class _Stream:
    """One sample on its way out."""

    def __init__(self, request: FakeRequest, prompt_tokens: int, prompt_logprobs: tuple[TokenLogprob, ...]) -> None:
        self.error: Exception | None = None
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._prompt_logprobs = prompt_logprobs
        self._cached = prompt_tokens - 1 if request.index else 0
        self._pieces: list[str] = []
        self._sent = 0
        self._end: Chunk = Chunk(request.index)
        self._reply = FakeReply("")

    def begin(self, script: Script, room: int) -> None:
        sampling, index = self._request.sampling, self._request.index
        try:
            said = script(self._request)
        except Exception as error:
            self.error = error
            self._end = Chunk(index, finish_reason="error", error=error)
            return
        self._reply = reply = said if isinstance(said, FakeReply) else FakeReply(said)
        self._pieces, stop = limited(reply.text, sampling, room)
        if len(self._pieces) + (stop is None) > room:
            self._pieces = self._pieces[:room]
            self._end = Chunk(index, finish_reason="length")
        elif reply.filtered:
            self._end = Chunk(index, finish_reason="content_filter")
        elif stop is not None:
            self._end = Chunk(index, finish_reason="stop", stop=stop)
        else:
            # The end of sequence is a token too, as is one of `stop_token_ids`.
            self._end = Chunk(index, finish_reason="eos", completion_tokens=1)

    def next(self, size: int) -> Chunk:
        new = self._pieces[self._sent : self._sent + size]
        first, self._sent = self._sent == 0, self._sent + size
        last = self._sent >= len(self._pieces)
        return Chunk(
            self._end.index,
            text="" if self._reply.refuses else "".join(new),
            token_ids=tuple(map(token_id, new)),
            # The end of sequence is a token too: generated, counted, and without text.
            completion_tokens=len(new) + (self._end.completion_tokens if last else 0),
            logprobs=tuple(map(self._logprob, new)) if self._request.sampling.logprobs is not None else (),
            prompt_logprobs=self._prompt_logprobs if first else (),
            prompt_tokens=self._prompt_tokens if first else 0,
            cached_tokens=self._cached if first else 0,
            finish_reason=self._end.finish_reason if last else None,
            stop=self._end.stop if last else None,
            error=self._end.error if last else None,
            refusal="".join(new) if self._reply.refuses else "",
        )

    def _logprob(self, piece: str) -> TokenLogprob:
        sampling = self._request.sampling
        known = {token: math.log(max(p, 1e-9)) for token, p in self._reply.rivals.items()}
        own = known.get(piece, math.log(0.5 + self._request.rng.random() / 2))
        known[piece] = own
        likeliest = sorted(known, key=lambda token: -known[token])[: sampling.logprobs]
        wanted = [decode((t,)) for t in sampling.logprob_token_ids] or likeliest
        top = tuple(TokenLogprob(t, known.get(t, _RARE), token_id(t)) for t in wanted)
        return TokenLogprob(piece, own, token_id(piece), top)


def limited(text: str, sampling: Sampling, room: int) -> tuple[list[str], str | None]:
    """A script's text as the tokens that the sampling lets it have, and the stop string that ended them.

    Where it may not end yet, the text begins again.
    """
    bias = sampling.logit_bias or {}
    only = [token for token, value in bias.items() if value >= _BIAS]
    said = pieces(decode(only[:1]) if only else text)
    if bias:
        said = [piece for piece in said if bias.get(token_id(piece), 0) > -_BIAS]
    floor = min(sampling.min_tokens or 0, room)
    ends = set(sampling.stop_token_ids)
    if only or sampling.ignore_eos:
        said = list(islice(cycle(said or [" "]), room + 1))
    elif len(said) < floor:
        said = list(islice(cycle(said or [" "]), floor))
    if ends:
        said = said[: next((i for i, piece in enumerate(said) if i >= floor and token_id(piece) in ends), len(said))]
    text, stop = cut_at_stop("".join(said), sampling, len("".join(said[:floor])))
    return pieces(text) if stop is not None else said, stop


def check(sampling: Sampling) -> None:
    """Raises Refused for what the script does not look at, and where a token that is to be the only one is none."""
    for field in ("bad_words", "allowed_token_ids"):
        if getattr(sampling, field):
            raise Refused(f"the fake engine does not look at {field}", field)
    kind = (sampling.structured or {}).get("type")
    if kind in ("regex", "grammar"):
        raise Refused(f"the fake engine knows no {kind}; it keeps JSON and choices", "structured_outputs")
    try:
        decode([token for token, value in (sampling.logit_bias or {}).items() if value >= _BIAS])
    except UnicodeDecodeError as error:
        raise Refused(f"the fake engine has no such token: {error.reason}", "logit_bias") from None


def cut_at_stop(text: str, sampling: Sampling, start: int = 0) -> tuple[str, str | None]:
    """The text up to the first stop string that ends behind `start`, and which one it was."""
    found = [(at, s) for s in sampling.stop if (at := text.find(s, max(0, start - len(s) + 1) if start else 0)) >= 0]
    if not found:
        return text, None
    at, stop = min(found)
    return text[: at + len(stop) if sampling.include_stop else at], stop


def render(prompt: Prompt, opening: str = "") -> str:
    """The fake's chat template."""
    tools = "".join(f"<tool>{json.dumps(tool)}\n" for tool in prompt.template.get("tools") or ())
    turns = tools + "".join(f"<{m['role']}>{text_of(m)}{_calls(m)}\n" for m in prompt.messages)
    if prompt.template.get("continue_final_message"):
        return turns.removesuffix("\n")
    return turns + "<assistant>" + opening if prompt.template.get("add_generation_prompt", True) else turns


def _calls(message: Message) -> str:
    calls = (call["function"] for call in message.get("tool_calls") or ())
    return "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)
