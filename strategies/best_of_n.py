"""Best-of-N: sample many, let a reward model choose (Cobbe et al. 2110.14168; Lightman et al. 2305.20050)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Engine, Event, Incumbent, Progress, Sample, Selector, Task
from strategies.core.options import HowToAggregate, SampleCount, refuse_unscored
from strategies.sampling.draw import candidates_of, draw, elect, scored, scoring_line


@strategy("best_of_n", paper="2110.14168, 2305.20050", scored=True, formed=True)
async def best_of_n(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: SampleCount = 8,
    selector: Annotated[
        Selector | None,
        Field(
            description="best: the highest score; weighted: the answer with the highest sum of scores; majority: the "
            "most frequent answer, without scores. Null is the reward model's own default."
        ),
    ] = None,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Draws n samples and returns the one that the reward model, or a vote weighted by it, prefers."""
    selector = selector or (prm.selector if prm else "best")
    refuse_unscored(prm, selector)
    samples: list[Sample] = []
    async with aclosing(draw(task, engine, n, samples)) as progress:
        async for line in progress:
            yield line
    candidates = candidates_of(samples)
    if prm and selector != "majority":
        unscored = await elect(candidates, "majority", account.seconds_left)
        yield Incumbent(unscored.best)
        try:
            candidates = await scored(task, candidates, prm, aggregation)
            yield Progress(scoring_line(candidates, prm))
        except BudgetSpent:
            # Without scores the vote falls back to the majority, which the incumbent leads.
            yield Progress("no budget is left for scores: the majority decides")
    yield await elect(candidates, selector, account.seconds_left)
