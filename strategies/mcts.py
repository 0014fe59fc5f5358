"""Monte Carlo tree search over steps: OpenR's (2410.09671) with a reward model, without one by agreement.

By agreement means that a rollout is worth the share of all answers that agree with its own, as in rStar (2408.06195).
Neither that paper's five kinds of action nor its second model, which discriminates, are here, nor the value model that
ReST-MCTS* (2406.03816) trains.

Solutions are drawn, not played: there is no opponent and no move to make, so every finished solution of the tree votes
and visits decide nothing but where to look next. For the same reason no rollout goes twice to the same end.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.answers import canonical, extract
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Engine, Event, Progress, Refused, Selector, Task
from strategies.core.options import HowToAggregate, refuse_unscored, scorer
from strategies.search.mcts_node import Node, Noise, Rule, puct, step_priors, uct
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens
from strategies.search.trajectory import Trajectory, to_ends

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
) -> AsyncIterator[Event]:
    """Rolls solutions out through a tree of steps, more often where earlier ones were good; all that ended vote."""
    selector = selector or ("weighted" if prm else "majority")
    refuse_unscored(prm, selector)
    if root_noise and selection != "puct":
        raise Refused("root_noise is for selection 'puct', the other rule has no priors", "tts.root_noise")
    by_agreement = (value or ("prm" if prm else "rollout")) == "rollout"
    judge = None if by_agreement else scorer(prm)
    if selection == "puct" and task.sampling.logprobs is None:
        task = replace(task, sampling=replace(task.sampling, logprobs=0))
    how = aggregation or (prm.aggregation if prm else "last")
    search = StepSearch(task, engine, judge, how, separator, step_tokens, account)
    rule, usual = _RULES[selection]
    noise = Noise(root_noise, noise_alpha, random.Random(task.sampling.seed)) if root_noise else None
    bound = usual if exploration is None else exploration
    tree = Tree(search, Node(await search.root()), rule, bound, branch, max_steps, by_agreement, noise)
    done, before = 0, account.usage.samples
    while done < n and not search.spent and not search.finishing.begun and not tree.root.closed:
        begun = account.usage.samples - before
        if not (wave := affordable(account, min(parallel, n - done), done, begun, branch)):
            break
        if finished := await tree.roll_out(wave):
            yield finished
        done += wave
        yield Progress(f"{done} of {n} rollouts: {len(search.leaves)} solutions have ended")
    if search.cause and not search.spent and not search.leaves and not tree.unfinished:
        raise search.cause
    if by_agreement and prm and selector != "majority" and search.leaves:
        # Only the vote needs scores.
        search.prm = prm
        try:
            search.leaves = await search.scored(search.leaves)
        except BudgetSpent:
            yield Progress("no budget is left for scores: the majority decides")
    yield await search.final(selector, [*tree.unfinished, *tree.growing()], account.seconds_left)


def affordable(account: Account, wave: int, done: int, begun: int, branch: int) -> int:
    """How many of a wave's rollouts the budget of samples allows.

    A rollout is one sample. The first steps that the tree samples are the beginnings of the first rollouts, and are
    counted where they begin.

    Args:
        account: the request's, in which further samples are begun here.
        wave: rollouts that the wave would like.
        done: rollouts before it.
        begun: samples that the search has begun so far.
        branch: first steps that are sampled at once.
    """
    if not done:
        return account.afford(min(wave, branch))
    more = done + wave - begun
    if more <= 0:
        return wave
    try:
        return wave - more + account.begin(more)
    except BudgetSpent:
        return 0


class End(NamedTuple):
    """The end of a rollout."""

    node: Node
    """The last node of the tree that it passed."""
    trajectory: Trajectory
    """The solution that it came to."""
    answer: str | None


@dataclass(slots=True)
class Tree:
    """The tree of one search. The rollouts of a wave move in step, so that the same seed grows the same tree."""

    search: StepSearch
    root: Node
    rule: Rule
    exploration: float
    branch: int
    max_steps: int
    by_agreement: bool
    noise: Noise | None = None
    answers: Counter[str] = field(default_factory=Counter)
    """The answers of all solutions so far; only by agreement."""
    unfinished: list[Trajectory] = field(default_factory=list)
    """Solutions that reached `max_steps`."""
    _place: int = 0

    async def roll_out(self, n: int) -> Progress | None:
        """Selects, expands, evaluates and backs up, n times at once.

        With a reward model, a rollout selects and expands until it reaches a solution's end, whose score is its value.
        By agreement, it expands once and samples the rest of the solution.

        Returns:
            A line where the deadline is so near that the rollouts are brought to their ends and no longer backed up.
        """
        nodes = self.select([self.root] * n)
        ends = self.ends(nodes)
        while growing := [node for node in nodes if not self.is_end(node.trajectory)]:
            if self.search.is_late([node.trajectory for node in growing]):
                return await self.finish(growing)
            await self.expand(growing)
            nodes = self.select(growing)
            ends += self.ends(nodes)
            if self.by_agreement:
                ends += await self.simulate([node for node in nodes if not self.is_end(node.trajectory)])
                break
        self.back_up(ends)
        return None

    def select(self, starts: Sequence[Node]) -> list[Node]:
        """Follows the rule from each start down to a node without children, which other rollouts may take too.

        A rollout ends unseen where all below its start is closed. The end of a solution is taken once, and closed.
        """
        total = self.answers.total()
        shares = {answer: count / total for answer, count in self.answers.items()} if self.by_agreement else None
        reached = []
        for start in starts:
            if node := start.descend(self.rule, self.exploration, shares):
                if self.is_end(node.trajectory):
                    node.close()
                reached.append(node)
        return reached

    async def expand(self, nodes: Sequence[Node]) -> None:
        """Samples the next steps of each node, all at once; a node whose steps all failed is closed."""
        nodes = list(dict.fromkeys(nodes))
        for node, grown in zip(nodes, await self._grow([(n.trajectory, self.branch) for n in nodes]), strict=True):
            priors = step_priors(grown)
            if node is self.root and self.noise:
                priors = self.noise.mixed(priors)
            node.children = [
                Node(child, node, prior, self.search.score(child)) for child, prior in zip(grown, priors, strict=True)
            ]
            for child in node.children:
                if self.is_end(child.trajectory):
                    child.answer = await self._keep(child.trajectory)
            if not grown:
                node.close()

    async def simulate(self, nodes: Sequence[Node]) -> list[End]:
        """Samples the rest of each node's solution, one step after the other; a rollout that fails is left out."""
        places = range(self._place, self._place + len(nodes))
        self._place += len(nodes)
        solutions = await asyncio.gather(*(self._rest(n.trajectory, p) for n, p in zip(nodes, places, strict=True)))
        ends = []
        for node, solution in zip(nodes, solutions, strict=True):
            if solution:
                ends.append(End(node, solution, await self._keep(solution)))
            else:
                node.leave()
        return ends

    def back_up(self, ends: Sequence[End]) -> None:
        """Counts a visit of each end in its node and in all nodes above it."""
        for end in ends:
            end.node.leave()
            end.node.back_up(self.search.score(end.trajectory), end.answer)

    def ends(self, nodes: Sequence[Node]) -> list[End]:
        """The nodes at which a solution ends."""
        return [End(node, node.trajectory, node.answer) for node in nodes if self.is_end(node.trajectory)]

    def is_end(self, trajectory: Trajectory) -> bool:
        return trajectory.ended or len(trajectory.samples) >= self.max_steps

    async def finish(self, nodes: Sequence[Node]) -> Progress:
        """Brings each node's solution to its end, which takes part in the vote."""
        distinct = list(dict.fromkeys(nodes))
        return await self.search.finish(to_ends([node.trajectory for node in distinct], self.branch), place=self._place)

    def growing(self) -> list[Trajectory]:
        """Trajectories that could be continued and were not."""
        return [node.trajectory for node in self.root.frontier() if not self.is_end(node.trajectory)]

    async def _rest(self, trajectory: Trajectory, place: int) -> Trajectory | None:
        while not self.is_end(trajectory):
            grown = (await self._grow([(trajectory, 1)], place))[0]
            if not grown:
                return None
            trajectory = grown[0]
        return trajectory

    async def _grow(self, wanted: Sequence[tuple[Trajectory, int]], place: int | None = None) -> list[list[Trajectory]]:
        if place is None:
            place = self._place
            self._place += len(wanted)
        return await self.search.try_growing(wanted, place=place)

    async def _keep(self, end: Trajectory) -> str | None:
        """Lets a solution take part in the vote; returns its canonical answer where values come from answers."""
        search = self.search
        (search.leaves if end.ended else self.unfinished).append(end)
        if not self.by_agreement or end.sample.withheld:
            return None
        answer = extract(end.text, truncated=not end.sample.finished, opening=search.task.opening)
        if answer is None:
            return None
        key = (await canonical([answer], search.account.seconds_left))[0]
        self.answers[key] += 1
        return key
