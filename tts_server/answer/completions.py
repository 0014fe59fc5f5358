"""Events to OpenAI's answer to `/v1/completions`: one body, or chunks, from the same pieces."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from strategies.core.account import Usage
from strategies.core.concurrency import merged
from strategies.core.contracts import Delta, Event, Final, Sample, TokenLogprob
from tts_server.answer.chat import LOGPROB_FLOOR, NO_END, Envelope, Json, chosen, finish_reason, places, spent, tts
from tts_server.errors import APIError, Timeout
from tts_server.planning.completion_prompts import PromptPlan
from tts_server.planning.plan import Plan
from tts_server.schema.completions import CompletionRequest
from tts_server.schema.ids import numbered, unique

PROMPTS_AT_ONCE = 32
"""One request's share of an engine that others use too."""


class TextAnswer:
    """What a request's prompts are answered with. Choice i of prompt p has the index p · n + i.

    Args:
        prompts: their plans, in order.
        request: what they are of.
    """

    typed = False
    continuous = False

    def __init__(self, prompts: Sequence[PromptPlan], request: CompletionRequest) -> None:
        self.id = f"cmpl-{unique()}"
        self.trace_id = f"trace-{unique()}"
        self._prompts = prompts
        self._request = request
        self._n = request.n or 1
        created = int(time.time())
        self._envelopes = [
            Envelope(
                model=request.model,
                strategy=prompt.plan.strategy,
                account=prompt.plan.account,
                choices=self._n,
                return_candidates=bool(request.tts and request.tts.return_candidates),
                id=self.id,
                trace_id=numbered(self.trace_id, place),
                created=created,
            )
            for place, prompt in enumerate(prompts)
        ]
        self._voices = [_Voice(prompt, request) for prompt in prompts for _ in range(self._n)]

    @property
    def plans(self) -> Sequence[Plan]:
        return [prompt.plan for prompt in self._prompts]

    def heartbeat(self) -> Json:
        return self._body([_choice(0, _Piece())])

    def failure(self, error: APIError) -> Sequence[Json]:
        return (error.body,)

    async def whole(self) -> Json:
        finals: dict[int, Final] = {}
        async with aclosing(self._events()) as events:
            async for number, event in events:
                if isinstance(event, Final):
                    finals[number] = event
        self._check_ended(finals)
        choices: list[Json] = []
        for number, envelope in enumerate(self._envelopes):
            for i, candidate in enumerate(chosen(finals[number], envelope)):
                voice = self._voices[number * self._n + i]
                choices.append(_choice(number * self._n + i, voice.all(candidate.sample)))
        told = [tts(finals[number], envelope) for number, envelope in enumerate(self._envelopes)]
        extras = {"usage": self._usage(finals), "tts": told if self._request.is_list else told[0]}
        return self._body(choices) | extras

    async def chunks(self) -> AsyncGenerator[Json, None]:
        finals: dict[int, Final] = {}
        streamed: dict[int, set[int]] = {}
        async with aclosing(self._events()) as events:
            async for number, event in events:
                if isinstance(event, Delta):
                    index = number * self._n + event.chunk.index
                    streamed.setdefault(number, set()).add(event.chunk.index)
                    if piece := self._voices[index].hear(Sample([event.chunk])):
                        yield self._body([_choice(index, piece)])
                elif isinstance(event, Final):
                    finals[number] = event
                    for chunk in self._ending(number, event, streamed.get(number, set())):
                        yield chunk
        self._check_ended(finals)
        if self._request.stream_options and self._request.stream_options.include_usage:
            yield self._body([]) | {"usage": self._usage(finals)}

    def _events(self) -> AsyncGenerator[tuple[int, Event], None]:
        return merged([prompt.plan.run for prompt in self._prompts], PROMPTS_AT_ONCE)

    def _ending(self, number: int, final: Final, streamed: set[int]) -> Iterator[Json]:
        envelope = self._envelopes[number]
        for i, sample in enumerate(places(final, envelope, streamed)):
            index = number * self._n + i
            for chunk in () if i in streamed else sample.chunks:
                if piece := self._voices[index].hear(Sample([chunk])):
                    yield self._body([_choice(index, piece)])
            end = self._body([_choice(index, self._voices[index].end(sample))])
            yield end | {"tts": tts(final, envelope)} if i == self._n - 1 else end

    def _usage(self, finals: dict[int, Final]) -> Json:
        returned = 0
        for number, envelope in enumerate(self._envelopes):
            texts = [candidate.sample for candidate in chosen(finals[number], envelope)]
            returned += 0 if self._request.limit == 0 else sum(text.completion_tokens for text in texts)
        return spent(reduce(_added, (prompt.plan.account.usage for prompt in self._prompts)), returned)

    def _body(self, choices: list[Json]) -> Json:
        return self._envelopes[0].body("text_completion", choices)

    def _check_ended(self, finals: dict[int, Final]) -> None:
        if len(finals) < len(self._prompts):
            raise RuntimeError(NO_END)


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in Usage.__dataclass_fields__})


@dataclass(slots=True)
class _Piece:
    """What a choice grows by."""

    text: str = ""
    logprobs: Json | None = None
    finish_reason: str | None = None
    extras: Json = field(default_factory=dict)


def _choice(index: int, piece: _Piece) -> Json:
    said = {"text": piece.text, "logprobs": piece.logprobs, "finish_reason": piece.finish_reason}
    return {"index": index, **said, **piece.extras}


class _Voice:
    """One choice as the client reads it: the prompt where it is to be echoed, then the sample as it grows."""

    def __init__(self, prompt: PromptPlan, request: CompletionRequest) -> None:
        self._prompt = prompt
        self._request = request
        self._silent = request.limit == 0
        self._begun = False
        self._offset = 0
        """Where the next token begins in what was told, token by token."""

    def all(self, sample: Sample) -> _Piece:
        """A whole sample."""
        piece = self.hear(sample) or _Piece(logprobs=self._logprobs([]))
        end = self.end(sample)
        piece.finish_reason = end.finish_reason
        piece.extras |= end.extras
        return piece

    def hear(self, grown: Sample) -> _Piece | None:
        """What a sample grew by; None where the client hears nothing of it."""
        first, self._begun = not self._begun, True
        # The endpoint has no field of its own for a refusal.
        text = "" if self._silent else grown.text + grown.refusal
        tokens = [] if self._silent else [_Token(p.token, p.logprob, p.top) for p in grown.logprobs]
        extras: Json = {}
        if first and self._request.echo:
            text = self._prompt.text + text
            tokens = self._echoed(grown) + tokens
        if self._request.return_token_ids:
            extras["token_ids"] = [] if self._silent else list(grown.token_ids)
            if first:
                extras["prompt_token_ids"] = list(self._prompt.token_ids)
        if not text and not tokens and not any(extras.values()):
            return None
        return _Piece(text, self._logprobs(tokens), extras=extras)

    def end(self, sample: Sample) -> _Piece:
        """The choice's last piece, which says nothing but why it ends."""
        stop = sample.chunks[-1].stop if sample.chunks else None
        return _Piece(finish_reason=finish_reason(sample.finish_reason), extras={"stop_reason": stop})

    def _echoed(self, grown: Sample) -> list["_Token"]:
        if self._request.logprobs is None:
            return []
        told = [logprob for chunk in grown.chunks for logprob in chunk.prompt_logprobs]
        if len(told) != len(self._prompt.token_ids) - 1:
            raise Timeout("The request's budget was spent before the prompt's logprobs were known.")
        return [_Token(self._prompt.begin), *(_Token(p.token, p.logprob, p.top) for p in told)]

    def _logprobs(self, tokens: Sequence["_Token"]) -> Json | None:
        """The endpoint's four lists, one entry a token."""
        k = self._request.logprobs
        if k is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        return {
            "text_offset": offsets,
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.told for token in tokens],
            "top_logprobs": [token.rivals(k) for token in tokens],
        }


@dataclass(frozen=True, slots=True)
class _Token:
    """One token of an answer's `logprobs`."""

    text: str
    logprob: float | None = None
    """None of a prompt's first, which nothing comes before."""
    top: tuple[TokenLogprob, ...] = ()

    @property
    def told(self) -> float | None:
        return None if self.logprob is None else max(self.logprob, LOGPROB_FLOOR)

    def rivals(self, k: int) -> dict[str, Any] | None:
        """The k likeliest tokens and this one; of those that read alike, the likeliest."""
        if self.told is None:
            return None
        likeliest: dict[str, Any] = {}
        for rival in self.top[:k]:
            likeliest.setdefault(rival.token, max(rival.logprob, LOGPROB_FLOOR))
        likeliest.setdefault(self.text, self.told)
        return likeliest
