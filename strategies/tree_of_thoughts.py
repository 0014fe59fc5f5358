"""Tree of thoughts: deliberate search over the steps of a solution (Yao et al. 2305.10601).

The defaults are the paper's where it has one: b = 5, k = 5, three votes a value, three steps and then the rest at once
(its final G(p, s, 1)), DFS of 100 visits. A solution has ended when it gives a boxed answer.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Refused, Task
from strategies.core.options import HowToAggregate
from strategies.core.widening import Finishing
from strategies.search.thought_calls import EvaluationCount, EvaluationTokens, Evaluator, Policy, refuse_unthinkable
from strategies.search.thought_tree import State, Tree, families
from strategies.search.trajectory import ranked

LATE = "the deadline is near, so solutions are finished instead of widened"


@strategy("tree_of_thoughts", paper="2305.10601", scored=True, edits=True)
async def tree_of_thoughts(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    generator: Annotated[
        Literal["sample", "propose"],
        Field(description="sample: each thought is drawn by itself; propose: one call lists different ones."),
    ] = "sample",
    evaluator: Annotated[
        Literal["value", "vote", "prm"] | None,
        Field(
            description="value: the policy judges each state sure, likely or impossible; vote: it chooses the best "
            "state; prm: the reward model scores each. Null: prm where one is loaded, else value."
        ),
    ] = None,
    search: Annotated[
        Literal["bfs", "dfs"],
        Field(description="bfs: step by step, keeping the best; dfs: the most promising first, with backtracking."),
    ] = "bfs",
    n_generate: Annotated[int, Field(ge=1, le=100, description="Thoughts after each state.")] = 5,
    n_evaluate: EvaluationCount = 3,
    breadth: Annotated[int, Field(ge=1, le=1000, description="With bfs: states kept at each step.")] = 5,
    max_steps: Annotated[
        int, Field(ge=1, le=100, description="Thoughts of one solution; its rest is then written at once.")
    ] = 3,
    threshold: Annotated[
        float, Field(ge=0, le=20, description="With dfs: a state of this value or less is pruned.")
    ] = 0.5,
    max_visits: Annotated[int, Field(ge=1, le=10_000, description="With dfs: states visited at most.")] = 100,
    evaluation_tokens: EvaluationTokens = 1000,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Searches a tree whose nodes are partial solutions, which the policy itself or a reward model evaluates."""
    refuse_unthinkable(task, evaluator, loaded=prm is not None)
    most = breadth if search == "bfs" else max_visits
    if task.choices > most:
        raise Refused(f"n is at most the states that the search keeps ({most}), got {task.choices}", "n")
    policy = Policy(task, engine)
    judge = Evaluator(policy, prm if evaluator in (None, "prm") else None, aggregation, evaluation_tokens)
    tree = Tree(policy, judge, generator, n_generate, n_evaluate, evaluator == "vote", Finishing(account))
    if search == "bfs":
        walk = breadth_first(tree, breadth, max_steps)
    else:
        walk = depth_first(tree, max_steps, threshold, max_visits)
    async with aclosing(walk) as progress:
        async for line in progress:
            yield line
    yield await tree.final(account.seconds_left)


async def breadth_first(tree: Tree, breadth: int, max_steps: int) -> AsyncGenerator[Progress, None]:
    """Algorithm 1. Ended states give their place up, so compute shrinks as solutions end."""
    states = [State()]
    for step in range(1, max_steps + 1):
        if tree.is_late(states):
            yield Progress(f"step {step}: {LATE}")
            break
        with tree.finishing.round():
            children = await tree.evaluated(await tree.children(states))
        if not children:
            break
        kept = ranked(families(children), lambda s: s.value.value)[: breadth - len(tree.leaves)]
        states = tree.retire(kept)
        yield Progress(f"step {step}: {len(kept)} of {len(children)} states are kept, {len(tree.leaves)} have ended")
        if tree.policy.spent or not states:
            break
    if states:
        yield Progress(await tree.complete(states))


async def depth_first(tree: Tree, max_steps: int, threshold: float, max_visits: int) -> AsyncGenerator[Progress, None]:
    """Algorithm 2. The stack's top is the most promising child of the state that was visited last."""
    stack, pruned = [State()], list[State]()
    for visit in range(1, max_visits + 1):
        if not stack or tree.policy.spent:
            break
        state = stack.pop()
        if tree.is_late([state]):
            yield Progress(f"visit {visit}: {LATE}")
            stack.append(state)
            break
        if state.ended or len(state.thoughts) == max_steps:
            yield Progress(f"visit {visit}: depth {len(state.thoughts)} is the end of a solution")
            yield Progress(await tree.complete(tree.retire([state])))
            continue
        with tree.finishing.round():
            children = await tree.evaluated(await tree.children([state]))
        good = [child for child in children if child.value.value > threshold]
        pruned += [child for child in children if child.value.value <= threshold]
        stack += sorted(good, key=lambda s: s.value.value, reverse=True)[::-1]
        count = f"{len(good)} of {len(children)} states are worth a visit"
        yield Progress(f"visit {visit}: depth {len(state.thoughts)}, {count}")
    if not tree.leaves:
        rest = stack or pruned or [State()]
        yield Progress(await tree.complete([max(rest, key=lambda s: (s.value.value, len(s.thoughts)))]))
