"""Events to OpenAI's answer: one body, or chunks. Both come from the same events; nothing is rendered twice."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.base import Candidate, Chunk, Delta, Event, Final, FinishReason, Progress, Sample, TokenLogprob
from strategies.budget import Account
from tts_server.errors import translate

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
    logprobs: bool = False
    return_candidates: bool = False
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    trace_id: str = field(default_factory=lambda: f"trace-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, kind: Literal["chat.completion", "chat.completion.chunk"], choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


async def completion(events: AsyncIterator[Event], envelope: Envelope) -> Json:
    """The whole answer as one `chat.completion`."""
    final = await _last(events)
    choices = [_choice(i, c, envelope) for i, c in enumerate(_chosen(final, envelope))]
    return envelope.body("chat.completion", choices) | {"usage": usage(final, envelope), "tts": tts(final, envelope)}


async def chunks(events: AsyncIterator[Event], envelope: Envelope) -> AsyncGenerator[Json, None]:
    """The answer as `chat.completion.chunk`s: progress as reasoning, then content, the ends and the usage."""
    begun = ended = False
    streamed: set[int] = set()
    async for event in events:
        if not begun:
            # The first event has come: from here on an error can only be a frame.
            begun = True
            for i in range(envelope.choices):
                yield _delta(envelope, i, {"role": "assistant", "content": ""})
        match event:
            case Progress(text):
                line = text + "\n"
                yield _delta(envelope, 0, {"reasoning": line, "reasoning_content": line})
            case Delta(chunk):
                streamed.add(chunk.index)
                if _says(chunk, envelope):
                    yield _content(envelope, chunk.index, chunk)
            case Final():
                ended = True
                for rendered in _ending(event, envelope, streamed):
                    yield rendered
            case _:
                pass
    if not ended:
        raise RuntimeError(NO_END)


def _ending(final: Final, envelope: Envelope, streamed: Set[int]) -> Iterator[Json]:
    ends = _places(final, envelope, streamed)
    for i in range(envelope.choices):
        sample = ends[i].sample if i in ends else Sample()
        if i not in streamed:
            for chunk in sample.chunks:
                if _says(chunk, envelope):
                    yield _content(envelope, i, chunk)
        end = _delta(envelope, i, {}, finish_reason(sample.finish_reason))
        yield end | {"tts": tts(final, envelope)} if i == envelope.choices - 1 else end
    if envelope.include_usage:
        yield envelope.body("chat.completion.chunk", []) | {"usage": usage(final, envelope)}


async def _last(events: AsyncIterator[Event]) -> Final:
    final = None
    async for event in events:
        if isinstance(event, Final):
            final = event
    if final is None:
        raise RuntimeError(NO_END)
    return final


def _chosen(final: Final, envelope: Envelope) -> list[Candidate]:
    return [final.candidates[i] for i in final.ranking[: envelope.choices]]


def _places(final: Final, envelope: Envelope, streamed: Set[int]) -> dict[int, Candidate]:
    """The returned candidates by choice; of several that were streamed, each stays where its text went."""
    chosen = _chosen(final, envelope)
    if streamed and envelope.choices > 1:
        return {candidate.sample.chunks[0].index: candidate for candidate in chosen}
    return dict(enumerate(chosen))


def _says(chunk: Chunk, envelope: Envelope) -> bool:
    """Whether the client gets anything of a chunk; a token can be without text, being part of a character."""
    return bool(chunk.text or (envelope.logprobs and chunk.logprobs))


def _choice(index: int, candidate: Candidate, envelope: Envelope) -> Json:
    logprobs = [_logprob(p) for p in candidate.sample.logprobs]
    return {
        "index": index,
        "message": {"role": "assistant", "content": candidate.text, "refusal": None},
        "logprobs": {"content": logprobs, "refusal": None} if envelope.logprobs else None,
        "finish_reason": finish_reason(candidate.sample.finish_reason),
    }


def _content(envelope: Envelope, index: int, chunk: Chunk) -> Json:
    logprobs = {"content": [_logprob(p) for p in chunk.logprobs], "refusal": None} if envelope.logprobs else None
    return _delta(envelope, index, {"content": chunk.text}, logprobs=logprobs)


def _delta(
    envelope: Envelope, index: int, delta: Json, finish_reason: str | None = None, logprobs: Json | None = None
) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return envelope.body("chat.completion.chunk", [choice])


def heartbeat(envelope: Envelope) -> Json:
    """A chunk that says nothing, for clients that count the seconds between chunks."""
    return _delta(envelope, 0, {})


def finish_reason(reason: FinishReason | None) -> Literal["stop", "length"]:
    """OpenAI's word: `length` only where the text was cut."""
    return "stop" if reason in ("eos", "stop") else "length"


def usage(final: Final, envelope: Envelope) -> Json:
    """OpenAI's usage: the client's prompt once, every generated token."""
    used = envelope.account.usage
    returned = sum(c.sample.completion_tokens for c in _chosen(final, envelope))
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
        "answer": final.best.answer,
        "score": final.best.score,
        "confidence": final.confidence,
        "stop_reason": account.stop_reason,
        "samples": used.samples,
        "votes": [{"answer": v.answer, "count": v.count, "weight": v.weight} for v in final.votes],
        "usage": {
            "engine_prompt_tokens": used.engine_prompt_tokens,
            "cached_prompt_tokens": used.cached_prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "prm_tokens": used.prm_tokens,
            "prm_calls": used.prm_calls,
            "wall_s": round(account.wall_s, 6),
        },
    }
    if envelope.return_candidates:
        said["candidates"] = [_candidate(c) for c in final.candidates]
    return said


def _candidate(candidate: Candidate) -> Json:
    sample = candidate.sample
    failed = next((c.error for c in sample.chunks if c.error), None)
    return {
        "text": candidate.text,
        "answer": candidate.answer,
        "score": candidate.score,
        "step_scores": candidate.step_scores,
        "weight": candidate.weight,
        "finish_reason": "error" if sample.finish_reason == "error" else finish_reason(sample.finish_reason),
        "completion_tokens": sample.completion_tokens,
    } | ({"error": translate(failed).message} if failed else {})


def _logprob(logprob: TokenLogprob) -> Json:
    return _token(logprob) | {"top_logprobs": [_token(top) for top in logprob.top]}


def _token(logprob: TokenLogprob) -> Json:
    return {
        "token": logprob.token,
        "logprob": max(logprob.logprob, LOGPROB_FLOOR),
        "bytes": list(logprob.token.encode()),
    }
