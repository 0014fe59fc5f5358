"""Events to OpenAI's answer: one body, or chunks. Both come from the same events; nothing is rendered twice."""

import math
import time
from collections.abc import AsyncGenerator, Iterator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.answers.think_tags import answer_tokens
from strategies.core.account import Account, Usage
from strategies.core.contracts import Candidate, Delta, Event, Final, FinishReason, Progress, Sample, TokenLogprob
from tts_server.answer.sample_text import Said, Voice, message, reasoning
from tts_server.errors import translate
from tts_server.forms.form import Form
from tts_server.schema.ids import unique

Json = dict[str, Any]

LOGPROB_FLOOR = -9999.0
"""JSON has no minus infinity; vLLM's floor."""

NO_END = "the strategy ended without a final event"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body and chunk of one answer carries."""

    model: str
    strategy: str
    account: Account
    choices: int = 1
    form: Form | None = None
    logprobs: bool = False
    return_candidates: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    """Whether every chunk carries the usage so far."""
    include_reasoning: bool = True
    """Whether thoughts and the search's progress are told."""
    id: str = field(default_factory=lambda: f"chatcmpl-{unique()}")
    trace_id: str = field(default_factory=lambda: f"trace-{unique()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(
        self, kind: Literal["chat.completion", "chat.completion.chunk", "text_completion"], choices: list[Json]
    ) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


async def completion(events: AsyncGenerator[Event, None], envelope: Envelope) -> Json:
    """The whole answer as one `chat.completion`."""
    final = None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Final):
                final = event
    if final is None:
        raise RuntimeError(NO_END)
    choices = [_choice(i, candidate.sample, envelope) for i, candidate in enumerate(chosen(final, envelope))]
    return envelope.body("chat.completion", choices) | {"usage": usage(final, envelope), "tts": tts(final, envelope)}


async def chunks(events: AsyncGenerator[Event, None], envelope: Envelope) -> AsyncGenerator[Json, None]:
    """The answer as `chat.completion.chunk`s: progress as reasoning, then content, the ends and the usage."""
    begun = ended = False
    voices: dict[int, Voice] = {}
    async with aclosing(events):
        async for event in events:
            if not begun:
                # The first event has come: from here on an error can only be a frame.
                begun = True
                for i in range(envelope.choices):
                    yield _delta(envelope, i, {"role": "assistant", "content": ""})
            match event:
                case Progress(text) if envelope.include_reasoning:
                    yield _said(envelope, 0, reasoning(text + "\n")) | _so_far(envelope)
                case Delta(chunk):
                    if chunk.index not in voices:
                        voices[chunk.index] = _voice(envelope)
                    for said in voices[chunk.index].hear(chunk):
                        yield _said(envelope, chunk.index, said)
                case Final():
                    ended = True
                    for rendered in _ending(event, envelope, voices):
                        yield rendered
                case _:
                    pass
    if not ended:
        raise RuntimeError(NO_END)


def _ending(final: Final, envelope: Envelope, voices: dict[int, Voice]) -> Iterator[Json]:
    for i, sample in enumerate(places(final, envelope, voices.keys())):
        heard = voices.get(i)
        voice = heard or _voice(envelope)
        for said in voice.end() if heard else voice.all(sample):
            yield _said(envelope, i, said)
        end = _delta(envelope, i, {}, finish_reason(sample.finish_reason, calls=voice.calls))
        yield end | {"tts": tts(final, envelope)} if i == envelope.choices - 1 else end
    if envelope.include_usage:
        yield envelope.body("chat.completion.chunk", []) | {"usage": usage(final, envelope)}


def chosen(final: Final, envelope: Envelope) -> list[Candidate]:
    """What is returned, best first."""
    return [final.candidates[i] for i in final.ranking[: envelope.choices]]


def places(final: Final, envelope: Envelope, streamed: Set[int]) -> list[Sample]:
    """The sample of each choice, an empty one where the search has none left.

    Of several that were streamed, each stays where its text went.
    """
    samples = [candidate.sample for candidate in chosen(final, envelope)]
    by_place = dict(enumerate(samples))
    if streamed and envelope.choices > 1:
        by_place = {sample.chunks[0].index: sample for sample in samples}
    return [by_place.get(i) or Sample() for i in range(envelope.choices)]


def _voice(envelope: Envelope) -> Voice:
    return Voice(envelope.form, logprobs=envelope.logprobs, thoughts=envelope.include_reasoning)


def _choice(index: int, sample: Sample, envelope: Envelope) -> Json:
    voice = _voice(envelope)
    said = list(voice.at_once(sample))
    return {
        "index": index,
        "message": message(said),
        "logprobs": _logprobs(said) if envelope.logprobs else None,
        "finish_reason": finish_reason(sample.finish_reason, calls=voice.calls),
    }


def _said(envelope: Envelope, index: int, said: Said) -> Json:
    told = envelope.logprobs and said.logprobs is not None
    return _delta(envelope, index, said.delta, logprobs=_logprobs([said]) if told else None)


def _logprobs(said: Sequence[Said]) -> Json:
    """Those of the answer's tokens, or of a refusal's."""
    told: Json = {"content": [], "refusal": []}
    for part in said:
        told["refusal" if "refusal" in part.delta else "content"] += map(token_logprob, part.logprobs or ())
    refusal = told["refusal"] or None
    return {"content": None if refusal and not told["content"] else told["content"], "refusal": refusal}


def _delta(
    envelope: Envelope, index: int, delta: Json, finish_reason: str | None = None, logprobs: Json | None = None
) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    body = envelope.body("chat.completion.chunk", [choice])
    return body | {"usage": _running(envelope.account.usage)} if envelope.continuous_usage else body


def heartbeat(envelope: Envelope) -> Json:
    """A chunk without text, which tells how far the search is where its client wants to know."""
    return _delta(envelope, 0, {}) | _so_far(envelope)


def _running(used: Usage) -> Json:
    """The usage of an answer that is not there yet; how much of it will be the answer is not known."""
    total = used.prompt_tokens + used.completion_tokens
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": total,
    }


def _so_far(envelope: Envelope) -> Json:
    """The `tts` object of a search under way, where its client wants to know."""
    if not envelope.continuous_usage:
        return {}
    account = envelope.account
    names = {"trace_id": envelope.trace_id, "strategy": envelope.strategy}
    return {"tts": {**names, "samples": account.usage.samples, "growing": account.live, "usage": _cost(account)}}


def finish_reason(
    reason: FinishReason | None, *, calls: bool = False
) -> Literal["stop", "length", "tool_calls", "content_filter"]:
    """OpenAI's word: `length` only where the text was cut."""
    if reason == "content_filter":
        return "content_filter"
    if reason not in ("eos", "stop"):
        return "length"
    return "tool_calls" if calls else "stop"


def usage(final: Final, envelope: Envelope) -> Json:
    """OpenAI's usage: the client's prompt once, every generated token; reasoning is what was not returned as answer."""
    returned = sum(answer_tokens(c.sample.chunks) for c in chosen(final, envelope))
    return spent(envelope.account.usage, returned)


def spent(used: Usage, returned: int) -> Json:
    """OpenAI's usage of what was used for an answer of `returned` tokens."""
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.completion_tokens - returned},
    }


def tts(final: Final, envelope: Envelope) -> Json:
    """Our own object: what was decided, why, and what it cost."""
    account = envelope.account
    used = account.usage
    said: Json = {
        "trace_id": envelope.trace_id,
        "strategy": envelope.strategy,
        "selector": final.selector,
        "answer": final.answer,
        "score": final.best.score,
        "confidence": final.confidence,
        "stop_reason": account.stop_reason,
        "samples": used.samples,
        "votes": [{"answer": v.answer, "count": v.count, "weight": v.weight} for v in final.votes],
        "usage": _cost(account),
    }
    if final.decision is not None:
        said["decision"] = final.decision
    if envelope.return_candidates:
        said["candidates"] = [_candidate(c) for c in final.candidates]
    return said


def _cost(account: Account) -> Json:
    """What the search has cost until now."""
    used = account.usage
    return {
        "engine_prompt_tokens": used.engine_prompt_tokens,
        "cached_prompt_tokens": used.cached_prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "prm_tokens": used.prm_tokens,
        "prm_calls": used.prm_calls,
        "wall_s": round(account.wall_s, 6),
    }


def _candidate(candidate: Candidate) -> Json:
    sample = candidate.sample
    failed = next((c.error for c in sample.chunks if c.error), None)
    return {
        "text": candidate.text,
        "answer": candidate.answer,
        "score": candidate.score,
        "step_scores": candidate.step_scores,
        "weight": candidate.weight,
        "logprob": _logprob(sample.logprobs),
        "finish_reason": "error" if sample.finish_reason == "error" else finish_reason(sample.finish_reason),
        "completion_tokens": sample.completion_tokens,
        **({"refusal": sample.refusal} if sample.refusal else {}),
        **({"error": translate(failed).message} if failed else {}),
    }


def _logprob(logprobs: Sequence[TokenLogprob]) -> float | None:
    """A sample's, the sum of its tokens'; None where the engine told none."""
    return math.fsum(max(token.logprob, LOGPROB_FLOOR) for token in logprobs) if logprobs else None


def token_logprob(logprob: TokenLogprob) -> Json:
    """A token of the answer with its likeliest rivals."""
    return _token(logprob) | {"top_logprobs": [_token(top) for top in logprob.top]}


def _token(logprob: TokenLogprob) -> Json:
    return {
        "token": logprob.token,
        "logprob": max(logprob.logprob, LOGPROB_FLOOR),
        "bytes": list(logprob.token.encode()),
    }
