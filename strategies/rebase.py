"""REBASE: reward-balanced search (Wu et al. 2408.00724)."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Task
from strategies.core.options import HowToAggregate, HowToSelect
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens
from strategies.search.trajectory import to_ends

TEMPERATURE = 1.0
"""Of the paper's samples, where the request gives none."""


@strategy("rebase", paper="2408.00724", needs_prm=True, continues=True)
async def rebase(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel,
    account: Account,
    *,
    n: Annotated[int, Field(ge=1, le=4096, description="Width of the tree; each finished solution narrows it.")] = 16,
    balance_temperature: Annotated[
        float, Field(gt=0, le=100, description="Of the softmax over rewards that shares the width out.")
    ] = 0.2,
    max_steps: MaxSteps = 25,
    step_tokens: StepTokens = 256,
    separator: Separator = "\n\n",
    selector: HowToSelect = "weighted",
    aggregation: HowToAggregate = None,
) -> AsyncIterator[Event]:
    """Shares the tree's width among its nodes by the softmax of their last steps' scores, depth by depth."""
    n = account.afford(n)
    if task.sampling.temperature is None:
        task = replace(task, sampling=replace(task.sampling, temperature=TEMPERATURE))
    search = StepSearch(task, engine, prm, aggregation or prm.aggregation, separator, step_tokens, account)
    nodes = [await search.root()]
    for depth in range(1, max_steps + 1):
        nodes.sort(key=search.step_score, reverse=True)
        shares = widths([search.step_score(node) for node in nodes], n - len(search.leaves), balance_temperature)
        wanted = [(node, share) for node, share in zip(nodes, shares, strict=True) if share]
        if search.is_late([node for node, _ in wanted]):
            yield await search.finish(to_ends([node for node, _ in wanted], n))
            break
        grown = await search.grow(wanted, unique=False)
        children = search.retire([child for siblings in grown for child in siblings])
        yield Progress(
            f"depth {depth}: {len(wanted)} nodes share a width of {sum(shares)}, {len(search.leaves)} solutions ended"
        )
        nodes = children or nodes
        if search.spent or not children or len(search.leaves) >= n:
            break
    yield await search.final(selector, nodes, account.seconds_left)


def widths(rewards: Sequence[float], width: int, temperature: float) -> list[int]:
    """How many children each node gets, best node first; they sum to `width`.

    Each takes the ceiling of its share of what is left, so good nodes are rounded up and poor ones may get none.
    """
    weights = [math.exp((reward - max(rewards)) / temperature) for reward in rewards]
    shares = []
    for i, weight in enumerate(weights):
        # Float error must not turn an exact share into one more.
        share = min(width, math.ceil(width * weight / math.fsum(weights[i:]) - 1e-9)) if width else 0
        shares.append(share)
        width -= share
    return shares
