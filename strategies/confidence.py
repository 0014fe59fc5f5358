"""Deep think with confidence: traces that the model itself is unsure of do not vote (Fu et al. 2508.15260).

The window of a group is scaled to the answers: 2048 tokens, as in the paper, are more than most answers have, and
then a trace would be one single group.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Refused, Sample, Task
from strategies.core.options import SampleCount
from strategies.sampling.draw import candidates_of, draw, sample_line
from strategies.sampling.drawing import succeeded
from strategies.sampling.logprob_confidence import (
    MEASURES,
    Ballot,
    LogprobReader,
    Measure,
    Trace,
    Watch,
    elect_by,
    token_confidence,
)
from strategies.sampling.streams import attempt, in_order, key_of


@strategy("confidence", paper="2508.15260", formed=True)
async def confidence(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: SampleCount = 32,
    mode: Annotated[
        Literal["offline", "online"],
        Field(
            description="offline: all traces are drawn, then the least confident are left out of the vote; online: a "
            "warm-up sets the bar, traces that fall below it are given up, and drawing stops at a consensus."
        ),
    ] = "offline",
    choose: Annotated[
        Literal["vote", "best"],
        Field(description="vote: each trace counts its confidence; best: the most confident trace, whatever it says."),
    ] = "vote",
    keep: Annotated[
        float, Field(gt=0, le=1, description="The paper's eta, 0.1 or 0.9: the most confident share, which votes.")
    ] = 0.9,
    measure: Annotated[
        Measure | None,
        Field(
            description="A trace's confidence. lowest: its least confident group; bottom: the mean of its lowest "
            "tenth of groups; tail: its last group; mean: all tokens; logprob: exp of the mean logprob of what was "
            "sampled. Null: tail offline, lowest online."
        ),
    ] = None,
    window: Annotated[int, Field(ge=1, description="Tokens of a group, at most.")] = 2048,
    window_share: Annotated[
        float, Field(gt=0, le=1, description="A group's tokens, at most, as a share of the median trace's.")
    ] = 0.25,
    top_logprobs: Annotated[
        int, Field(ge=2, le=20, description="Likeliest tokens from which a token's confidence is computed.")
    ] = 20,
    warmup: Annotated[int, Field(ge=1, le=4096, description="Online: traces that set the bar.")] = 16,
    consensus: Annotated[
        float, Field(gt=0, le=1, description="Online: the leading answer's share of confidence that ends the search.")
    ] = 0.95,
    parallel: Annotated[int, Field(ge=1, le=4096, description="Online: traces drawn at once after the warm-up.")] = 8,
) -> AsyncGenerator[Event, None]:
    """Draws traces and lets those vote of which the model itself was the surest, by its logprobs."""
    # The lowest group of an answer of a few hundred tokens says nothing of whether it is right, its tail does.
    measure = measure or ("tail" if mode == "offline" else "lowest")
    if mode == "online" and measure != "lowest":
        raise Refused(
            "online, a trace is given up for its lowest group, so the measure must be 'lowest'", "tts.measure"
        )
    # Only the warm-up's traces are sure to come to an end.
    first = n if mode == "offline" else min(n, max(warmup, task.choices))
    thinking = _Thinking(task, engine, account, measure, top_logprobs)
    async with aclosing(thinking.draw(first, window, window_share, keep)) as progress:
        async for line in progress:
            yield line
    if mode == "online":
        async with aclosing(thinking.go_on(n - first, parallel, consensus)) as progress:
            async for line in progress:
                yield line
    ballot = thinking.ballot
    candidates = candidates_of([trace.sample for trace in ballot.traces])
    if choose == "best":
        yield await elect_by(
            [trace.confidence for trace in ballot.traces] or [0.0], candidates, "best", account.seconds_left
        )
    else:
        yield await elect_by(ballot.weights or [0.0], candidates, within_s=account.seconds_left)


@dataclass(slots=True)
class _Thinking:
    """One search: how a trace is drawn and measured, and the ballot of those that ended."""

    task: Task
    engine: Engine
    account: Account
    measure: Measure
    top_logprobs: int
    ballot: Ballot = field(default_factory=Ballot)
    window: int = 1

    async def draw(self, n: int, window: int, share: float, keep: float) -> AsyncGenerator[Progress, None]:
        """Draws n whole traces in one call, and finds the window and the bar."""
        samples: list[Sample] = []
        reader = self._reader()
        async with aclosing(draw(self.task, reader, n, samples)) as progress:
            async for line in progress:
                yield line
        readings = [reader.readings.get(sample.chunks[0].index, []) for sample in samples]
        if any(sample.text for sample in samples) and not any(readings):
            raise Refused("the engine tells no logprobs, which this strategy needs", "tts.strategy")
        lengths = [len(values) for sample, values in zip(samples, readings, strict=True) if succeeded(sample)]
        self.window = min(window, max(1, round(share * median(lengths or [1]))))
        for sample, values in zip(samples, readings, strict=True):
            self.ballot.traces.append(await self._trace(sample, values))
        self.ballot.set_bar(keep)
        yield Progress(f"a trace votes if its confidence over {self.window} tokens is at least {self.ballot.bar:.3g}")

    async def go_on(self, n: int, parallel: int, consensus: float) -> AsyncGenerator[Progress, None]:
        """Draws up to n more traces, giving up those that fall below the bar, until the voters agree."""
        async with aclosing(in_order(partial(self._think, len(self.ballot.traces)), n, parallel)) as ended:
            while self.ballot.share < consensus and (trace := await anext(ended, None)):
                sample = trace.sample
                if not sample.chunks:
                    break
                if sample.finish_reason is None:
                    line = f"sample {sample.chunks[0].index + 1} is given up after {sample.completion_tokens} tokens"
                    yield Progress(f"{line}: its confidence fell below {self.ballot.bar:.3g}")
                else:
                    self.ballot.traces.append(trace)
                    yield Progress(sample_line(sample.chunks[-1], sample))

    async def _think(self, before: int, place: int) -> Trace:
        reader = self._reader()
        values = reader.readings.setdefault(0, [])
        watch = Watch(values, self.window, self.ballot.bar)
        return await self._trace(await attempt(self.task, reader, before + place, lambda _: not watch()), values)

    async def _trace(self, sample: Sample, values: Sequence[float]) -> Trace:
        return Trace(sample, await key_of(sample, self.account), MEASURES[self.measure](values, self.window))

    def _reader(self) -> LogprobReader:
        if self.measure == "logprob":
            return LogprobReader(self.engine, 0, lambda token: token.logprob)
        return LogprobReader(self.engine, self.top_logprobs, token_confidence)
