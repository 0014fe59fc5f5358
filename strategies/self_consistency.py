"""Self-consistency: sample many chains of thought, return the answer most of them reach (Wang et al. 2203.11171)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.base import Engine, Event, Task
from strategies.best_of_n import HowToAggregate, SampleCount, best_of_n
from strategies.budget import Account
from strategies.prompts import Examples, SystemPrompt


@strategy("self_consistency", paper="2203.11171", scored=True)
async def self_consistency(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: SampleCount = 8,
    selector: Annotated[
        Literal["majority", "weighted"],
        Field(description="majority: each sample counts one; weighted: each counts its reward model score."),
    ] = "majority",
    aggregation: HowToAggregate = None,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncGenerator[Event, None]:
    """Draws n samples and returns the answer that most of them, or most of their scores, agree on."""
    search = best_of_n(
        task,
        engine,
        prm,
        account,
        n=n,
        selector=selector,
        aggregation=aggregation,
        system_prompt=system_prompt,
        examples=examples,
    )
    async with aclosing(search) as events:
        async for event in events:
            yield event
