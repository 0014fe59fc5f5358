"""What a server answered, as records have it. Sends nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.rescoring.pools import sample_of
from bench.stored.records import CUT, SampleRecord, Usage
from strategies.answers import extract
from strategies.core.contracts import Candidate
from strategies.sampling.draw import elect
from tts_server import client
from tts_server.client import ChatResult


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    samples: tuple[SampleRecord, ...]
    text: str
    """Of the returned solution."""
    truncated: bool
    chosen: int | None
    usage: Usage
    confidence: float | None
    stop_reason: str | None
    latency_s: float
    ttft_s: float | None


async def reply_of(result: ChatResult, latency_s: float, ttft_s: float | None) -> Reply:
    """A server's answer: the candidates of a search, or the choices of a plain request and their majority."""
    search = result.tts
    if search is not None and search.candidates:
        samples = tuple(map(_of_candidate, search.candidates))
        choice = result.choices[0]
        text, truncated = choice.message.content or "", choice.finish_reason in CUT
        chosen = next((i for i, sample in enumerate(samples) if sample.text == text and not sample.error), None)
    else:
        samples = tuple(_of_choice(result, i) for i in range(len(result.choices)))
        chosen = await _majority(samples)
        text, truncated = samples[chosen].text or "", samples[chosen].truncated
    return Reply(
        samples,
        text,
        truncated,
        chosen,
        _usage(result, len(samples)),
        search.confidence if search else None,
        search.stop_reason if search else None,
        latency_s,
        ttft_s,
    )


def _of_candidate(told: client.Candidate) -> SampleRecord:
    return SampleRecord(
        text=told.text,
        answer=told.answer,
        step_scores=None if told.step_scores is None else tuple(told.step_scores),
        score=told.score,
        logprob=told.logprob,
        completion_tokens=told.completion_tokens,
        finish_reason=told.finish_reason,
        error=told.error,
    )


def _of_choice(result: ChatResult, place: int) -> SampleRecord:
    choice = result.choices[place]
    text = choice.message.content or ""
    tokens = choice.logprobs.content if choice.logprobs else None
    # OpenAI's usage has one sum for all choices.
    alone = result.usage is not None and len(result.choices) == 1
    return SampleRecord(
        text=text,
        answer=extract(text, truncated=choice.finish_reason in CUT),
        logprob=sum(token.logprob for token in tokens) if tokens else None,
        completion_tokens=result.usage.completion_tokens if alone and result.usage else None,
        finish_reason=choice.finish_reason,
    )


async def _majority(samples: Sequence[SampleRecord]) -> int:
    """The sample that a vote over plain choices returns."""
    candidates = [Candidate(sample_of(sample), sample.answer) for sample in samples]
    return (await elect(candidates, "majority")).ranking[0]


def _usage(result: ChatResult, samples: int) -> Usage:
    told = result.usage
    cached = told.prompt_tokens_details.cached_tokens if told and told.prompt_tokens_details else None
    usage = Usage(
        prompt_tokens=told.prompt_tokens if told else None,
        # All choices of a request share one prompt.
        engine_prompt_tokens=told.prompt_tokens if told else None,
        cached_prompt_tokens=cached,
        completion_tokens=told.completion_tokens if told else None,
        samples=samples,
    )
    if result.tts is None:
        return usage
    spent = result.tts.usage
    return replace(
        usage,
        engine_prompt_tokens=spent.engine_prompt_tokens,
        cached_prompt_tokens=spent.cached_prompt_tokens,
        completion_tokens=spent.completion_tokens,
        prm_tokens=spent.prm_tokens,
        prm_calls=spent.prm_calls,
        samples=result.tts.samples,
    )
