"""Self-consistency: sample many chains of thought, return the answer most of them reach (Wang et al. 2203.11171).

With a stop it draws no more than it takes to be sure: adaptive consistency (Aggarwal et al. 2305.11860) and
early-stopping self-consistency (Li et al. 2401.10480).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Candidate, Engine, Event, Final, Incumbent, Progress, Sample, Task
from strategies.core.options import HowToAggregate, SampleCount, refuse_unscored
from strategies.sampling.draw import candidates_of, draw, elect, scored
from strategies.sampling.logprob_confidence import elect_by, mean_probability, only_asked
from strategies.sampling.stopping import is_settled, is_unanimous
from strategies.sampling.streams import draw_until


@strategy("self_consistency", paper="2203.11171, 2305.11860, 2401.10480", scored=True, formed=True)
async def self_consistency(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: SampleCount = 8,
    selector: Annotated[
        Literal["majority", "logprob", "weighted"],
        Field(
            description="majority: each sample counts one; logprob: each counts its probability, normalised by its "
            "length; weighted: each counts its reward model score."
        ),
    ] = "majority",
    stopping: Annotated[
        Literal["none", "beta", "esc"],
        Field(
            description="none: all n are drawn; beta: until the leading answer will stay ahead of the second with "
            "`confidence`; esc: until all of a window give one answer."
        ),
    ] = "none",
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="With beta: how sure to be of the leader.")] = 0.95,
    window: Annotated[int, Field(ge=2, le=4096, description="With esc: samples in a window.")] = 5,
    parallel: Annotated[
        int | None,
        Field(ge=1, le=4096, description="With a stop: samples drawn at once. Null: the fewest that can stop it."),
    ] = None,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Draws samples and returns the answer that most of them, or most of their weight, agree on."""
    if selector == "weighted":
        refuse_unscored(prm, selector)
    logprobs = task.sampling.logprobs
    if selector == "logprob" and logprobs is None:
        task = replace(task, sampling=replace(task.sampling, logprobs=0))
    samples: list[Sample] = []
    match stopping:
        case "none":
            drawing = draw(task, engine, n, samples)
        case "beta":
            sure = partial(is_settled, confidence=confidence)
            fewest = next(votes for votes in count(1) if sure(["one answer"] * votes))
            drawing = draw_until(sure, task, engine, account, n, parallel or fewest, samples)
        case "esc":
            drawing = draw_until(
                partial(is_unanimous, window=window), task, engine, account, n, parallel or window, samples
            )
    async with aclosing(drawing) as progress:
        async for line in progress:
            yield line
    candidates = candidates_of(samples)
    if selector == "logprob":
        yield await _elect_by_logprob(candidates, logprobs, account)
        return
    if selector == "weighted" and prm:
        yield Incumbent((await elect(candidates, "majority", account.seconds_left)).best)
        try:
            candidates = await scored(task, candidates, prm, aggregation)
            yield Progress(f"{len(candidates)} candidates are scored by {prm.name}")
        except BudgetSpent:
            # Without scores the vote falls back to the majority, which the incumbent leads.
            yield Progress("no budget is left for scores: the majority decides")
    yield await elect(candidates, selector, account.seconds_left)


async def _elect_by_logprob(candidates: Sequence[Candidate], logprobs: int | None, account: Account) -> Final:
    weights = [mean_probability([token.logprob for token in c.sample.logprobs]) for c in candidates]
    returned = [
        replace(c, sample=Sample([only_asked(chunk, logprobs) for chunk in c.sample.chunks])) for c in candidates
    ]
    return await elect_by(weights, returned, within_s=account.seconds_left)
