"""Compute-optimal allocation: a pilot tells how hard a question is, a table what that deserves (2408.03314).

The pilot's samples are votes, and the first steps of a search. Where they agree, they are the answer. Otherwise the arm
is taken whose accuracy on such questions is surely the highest among those that fit the budget, as Liu et al.
(2502.06703) have it for a pair of policy and reward model; votes are drawn in waves and judged again after each. The
table is fitted by `tts-bench calibrate`; without one, published results stand in for it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.allocation.allocate import Allocation, Wishes
from strategies.best_of_n import HowToAggregate
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Task
from strategies.sampling.prompts import Examples, SystemPrompt, prompted


@strategy("compute_optimal", paper="2408.03314, 2502.06703, 2410.04707", scored=True, formed=True)
async def compute_optimal(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    target_accuracy: Annotated[
        float | None,
        Field(gt=0, lt=1, description="The cheapest arm that surely reaches this is taken. Null: the most accurate."),
    ] = None,
    accept_score: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="A pilot that agrees is the answer only if the reward model gives it this score on the mean. "
            "Null: to agree is enough.",
        ),
    ] = None,
    confidence: Annotated[
        float, Field(gt=0.5, lt=1, description="How sure to be of a vote's leader to draw no more.")
    ] = 0.95,
    min_gain: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The rise of the chance of a right answer that a thousand further tokens must promise.",
        ),
    ] = 0.0,
    exploration: Annotated[
        float, Field(ge=0, le=1, description="The share of questions that get another arm that fits, at random.")
    ] = 0.0,
    aggregation: HowToAggregate = None,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncGenerator[Event, None]:
    """Draws a few samples, and spends on the question what its difficulty deserves and the budget allows."""
    wishes = Wishes(target_accuracy, accept_score, confidence, min_gain, exploration, aggregation)
    allocation = Allocation(prompted(task, system_prompt, examples), engine, prm, account, wishes)
    async with aclosing(allocation.run()) as events:
        async for event in events:
            yield event
