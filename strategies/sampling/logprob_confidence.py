"""How sure the model itself was of what it wrote: from logprobs to a sample's weight in a vote."""

import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal

from strategies.core.contracts import Candidate, Chunk, Engine, Final, Prompt, Sample, Sampling, TokenLogprob
from strategies.core.engine_wrapper import EngineWrapper
from strategies.sampling.draw import elect

_FLOOR = -100.0
"""Stands for the logprob of a token that cannot come, which engines tell as -inf or as some large number."""
_BOTTOM = 0.1
"""The share of least confident groups that the measure `bottom` looks at."""
_ROUNDING = 1e-9


def token_confidence(token: TokenLogprob) -> float | None:
    """-1/k Σ ln P over the k likeliest tokens (2508.15260): high where one of them has all the probability.

    None where the engine gave no rivals.
    """
    tops = [max(top.logprob, _FLOOR) for top in token.top]
    return -math.fsum(tops) / len(tops) if tops else None


def mean_probability(logprobs: Sequence[float]) -> float:
    """The probability of what was sampled, normalised by its length: exp of its mean logprob (2203.11171)."""
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 0.0


def groups(confidences: Sequence[float], window: int) -> list[float]:
    """The mean of each `window` tokens in a row; of all where they are fewer."""
    window = min(window, len(confidences))
    sums = list(accumulate(confidences, initial=0.0))
    return [(end - start) / window for start, end in zip(sums, sums[window:], strict=False)] if window else []


def lowest(confidences: Sequence[float], window: int) -> float:
    """The least confident group."""
    return min(groups(confidences, window), default=0.0)


def bottom(confidences: Sequence[float], window: int) -> float:
    """The mean of the least confident tenth of the groups."""
    ordered = sorted(groups(confidences, window))
    worst = ordered[: math.ceil(_BOTTOM * len(ordered))]
    return math.fsum(worst) / len(worst) if worst else 0.0


def tail(confidences: Sequence[float], window: int) -> float:
    """The last group."""
    return (groups(confidences, window) or [0.0])[-1]


def mean(confidences: Sequence[float], window: int) -> float:
    """All tokens, whatever the window."""
    return math.fsum(confidences) / len(confidences) if confidences else 0.0


Measure = Literal["lowest", "bottom", "tail", "mean", "logprob"]

MEASURES: Mapping[Measure, Callable[[Sequence[float], int], float]] = {
    "lowest": lowest,
    "bottom": bottom,
    "tail": tail,
    "mean": mean,
    "logprob": lambda logprobs, window: mean_probability(logprobs),
}
"""How a trace's token confidences (of `logprob`: the logprobs of what was sampled) become its own."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = ordered[min(below + 1, len(ordered) - 1)]
    return ordered[below] + (place - below) * (above - ordered[below])


def reaches(confidence: float, bar: float) -> bool:
    return confidence >= bar - _ROUNDING


class Watch:
    """Says of a growing trace whether all its groups so far reach the bar; each token is looked at once."""

    def __init__(self, confidences: Sequence[float], window: int, bar: float) -> None:
        self._confidences = confidences
        self._window = window
        self._bar = bar
        self._seen = 0
        self._sum = 0.0

    def __call__(self) -> bool:
        values, window = self._confidences, self._window
        for i in range(self._seen, len(values)):
            self._sum += values[i] - (values[i - window] if i >= window else 0.0)
            if i >= window - 1 and not reaches(self._sum / window, self._bar):
                return False
        self._seen = len(values)
        return True


@dataclass(frozen=True, slots=True)
class Trace:
    """A sample, what it answers (canonical) and how sure the model was."""

    sample: Sample
    key: str | None
    confidence: float


@dataclass(slots=True)
class Ballot:
    """The traces that ended, and the confidence that lets them vote."""

    traces: list[Trace] = field(default_factory=list)
    bar: float = 0.0

    def set_bar(self, keep: float) -> None:
        """Lets the most confident share of the traces vote; only those that say something are counted."""
        voters = [trace for trace in self.traces if trace.key is not None] or self.traces
        if voters:
            self.bar = percentile([trace.confidence for trace in voters], 1 - keep)

    @property
    def weights(self) -> list[float]:
        """What each trace counts for: its confidence, or nothing below the bar."""
        return [trace.confidence if reaches(trace.confidence, self.bar) else 0.0 for trace in self.traces]

    @property
    def share(self) -> float:
        """The leading answer's share of the vote; 0 where nothing has a vote."""
        votes: dict[str, float] = defaultdict(float)
        for trace, weight in zip(self.traces, self.weights, strict=True):
            if trace.key is not None:
                votes[trace.key] += weight
        total = math.fsum(votes.values())
        return max(votes.values()) / total if total else 0.0


class LogprobReader(EngineWrapper):
    """An engine that reads the logprobs of what passes, and hands on only those that were asked for.

    Args:
        top: rivals of each token that `read` needs.
        read: what to keep of a token; None for nothing.
    """

    def __init__(self, engine: Engine, top: int, read: Callable[[TokenLogprob], float | None]) -> None:
        super().__init__(engine)
        self.readings: dict[int, list[float]] = {}
        """What was read of each of the call's samples."""
        self._top = top
        self._read = read

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        asked = sampling.logprobs
        wanted = replace(sampling, logprobs=max(self._top, asked or 0))
        async with aclosing(self._engine.generate(prompt, wanted, n)) as chunks:
            async for chunk in chunks:
                read = map(self._read, chunk.logprobs)
                self.readings.setdefault(chunk.index, []).extend(value for value in read if value is not None)
                yield only_asked(chunk, asked)


def only_asked(chunk: Chunk, logprobs: int | None) -> Chunk:
    """The chunk with the logprobs that `Sampling.logprobs` stands for, of those it has."""
    if logprobs is None:
        return replace(chunk, logprobs=())
    return replace(chunk, logprobs=tuple(replace(token, top=token.top[:logprobs]) for token in chunk.logprobs))


async def elect_by(
    weights: Sequence[float],
    candidates: Sequence[Candidate],
    selector: Literal["best", "weighted"] = "weighted",
    within_s: float | None = None,
) -> Final:
    """A vote in which each candidate counts its weight, or the choice of the heaviest; so too without any answer.

    The weights are the model's own doing, so they stand beside the candidates as `weight`, not as `score`.
    """
    weighed = [replace(c, score=weight) for c, weight in zip(candidates, weights, strict=True)]
    final = await elect(weighed, selector, within_s)
    unscored = tuple(replace(c, score=None) for c in final.candidates)
    # A weight can be above 1, so only its share of a vote is a confidence.
    voted = selector == "weighted" and final.votes
    return replace(final, candidates=unscored, confidence=final.confidence if voted else None)
