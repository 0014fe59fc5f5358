"""First to agree: samples come in rounds until one answer has enough votes (a plain form of 2305.11860)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from strategies.kit import (
    Account,
    Engine,
    Event,
    Incumbent,
    ProcessRewardModel,
    Progress,
    Sample,
    Task,
    candidates_of,
    draw,
    elect,
    strategy,
)


@strategy("first_to_agree", paper="2305.11860", formed=True)
async def first_to_agree(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: Annotated[int, Field(ge=1, le=256, description="The most samples to draw.")] = 16,
    votes: Annotated[int, Field(ge=2, le=256, description="Equal answers that end the search.")] = 3,
    round_size: Annotated[int, Field(ge=1, le=256, description="Samples of one round.")] = 4,
) -> AsyncGenerator[Event, None]:
    """Draws rounds of samples until one answer has enough votes, and returns that answer."""
    samples: list[Sample] = []
    while True:
        before = len(samples)
        async with aclosing(draw(task, engine, min(round_size, n - before), samples)) as progress:
            async for line in progress:
                yield line
        final = await elect(candidates_of(samples), "majority", account.seconds_left)
        # A round without samples is the end of the budget.
        if len(samples) in (before, n) or (final.vote and final.vote.count >= votes):
            yield final
            return
        yield Incumbent(final.best)
        yield Progress(f"no answer has {votes} of {len(samples)} votes: another round begins")
