"""Monte Carlo tree search over steps: OpenR's (2410.09671) with a reward model, rStar's (2408.06195) without one.

Solutions are drawn, not played: there is no opponent and no move to make, so every finished solution of the tree votes
and visits decide nothing but where to look next. For the same reason no rollout goes twice to the same end.
"""

import math
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Literal, cast

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.best_of_n import HowToAggregate
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Engine, Event, Progress, Refused, Selector, Task
from strategies.sampling.draw import refuse_choices, refuse_unscored
from strategies.sampling.prompts import Examples, SystemPrompt, prompted
from strategies.search.mcts_node import Node, Noise, Rule, puct, uct
from strategies.search.mcts_tree import Tree, Unscored
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens, scorer

Selection = Literal["puct", "uct"]
Value = Literal["prm", "rollout"]

_RULES: dict[Selection, tuple[Rule, float]] = {"puct": (puct, 1.25), "uct": (uct, math.sqrt(2))}
"""Each with its usual exploration constant."""


@strategy("mcts", paper="2406.03816, 2408.06195, 2410.09671", scored=True, continues=True)
async def mcts(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: Annotated[int, Field(ge=1, le=4096, description="Rollouts.")] = 16,
    branch: Annotated[int, Field(ge=1, le=64, description="Next steps sampled where a node is expanded.")] = 4,
    selection: Annotated[
        Selection,
        Field(description="How a child is chosen; puct's priors are the steps' probabilities, so it needs logprobs."),
    ] = "puct",
    exploration: Annotated[
        float | None, Field(ge=0, le=100, description="Null: 1.25 with puct, the square root of 2 with uct.")
    ] = None,
    value: Annotated[
        Value | None,
        Field(
            description="prm: the reward model's score of where a rollout ends; rollout: the share of all answers that "
            "agree with the rollout's. Null: prm where a reward model is loaded."
        ),
    ] = None,
    parallel: Annotated[
        int, Field(ge=1, le=256, description="Rollouts at once, kept apart by a virtual loss. Many make it wider.")
    ] = 4,
    root_noise: Annotated[
        float, Field(ge=0, le=1, description="Share of Dirichlet noise in the priors of the first step, with puct.")
    ] = 0.0,
    noise_alpha: Annotated[float, Field(gt=0, le=100, description="Concentration of that noise.")] = 0.3,
    max_steps: MaxSteps = 40,
    step_tokens: StepTokens = None,
    separator: Separator = "\n\n",
    selector: Annotated[
        Selector | None,
        Field(description="How one of the finished solutions is chosen. Null: weighted, or majority without scores."),
    ] = None,
    aggregation: HowToAggregate = None,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncIterator[Event]:
    """Rolls solutions out through a tree of steps, more often where earlier ones were good; all that ended vote."""
    refuse_choices(task, n)
    selector = selector or ("weighted" if prm else "majority")
    refuse_unscored(prm, selector)
    if root_noise and selection != "puct":
        raise Refused("root_noise is for selection 'puct', the other rule has no priors", "tts.root_noise")
    by_agreement = (value or ("prm" if prm else "rollout")) == "rollout"
    task = prompted(task, system_prompt, examples)
    if selection == "puct" and task.sampling.logprobs is None:
        task = replace(task, sampling=replace(task.sampling, logprobs=0))
    how = aggregation or (prm.aggregation if prm else "last")
    # Without scores nothing is ever asked of the reward model.
    search: StepSearch = (
        Unscored(task, engine, cast(ProcessRewardModel, prm), how, separator, step_tokens, account)
        if by_agreement
        else StepSearch(task, engine, scorer(prm), how, separator, step_tokens, account)
    )
    rule, usual = _RULES[selection]
    noise = Noise(root_noise, noise_alpha, random.Random(task.sampling.seed)) if root_noise else None
    bound = usual if exploration is None else exploration
    tree = Tree(search, account, Node(await search.root()), rule, bound, branch, max_steps, by_agreement, noise)
    done, before = 0, account.usage.samples
    while done < n and not search.spent and not search.finishing.begun and not tree.root.closed:
        wave = min(parallel, n - done)
        if not done:
            # The first steps that are sampled are the beginnings of the first rollouts, and counted there.
            wave = account.afford(min(wave, branch))
        elif (more := done + wave - (account.usage.samples - before)) > 0:
            try:
                wave -= more - account.begin(more)
            except BudgetSpent:
                break
        if finished := await tree.rollouts(wave):
            yield finished
        done += wave
        yield Progress(f"{done} of {n} rollouts: {len(search.leaves)} solutions have ended")
    if search.cause and not search.spent and not search.leaves and not tree.unfinished:
        raise search.cause
    if by_agreement and prm and selector != "majority" and search.leaves:
        try:
            search.leaves = await StepSearch.scored(search, search.leaves)
        except BudgetSpent:
            yield Progress("no budget is left for scores: the majority decides")
    yield await search.final(selector, [*tree.unfinished, *tree.growing()], account.seconds_left)
