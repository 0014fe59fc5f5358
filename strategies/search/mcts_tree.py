"""Rollouts through a tree of steps: select, expand, evaluate, back up. The rule that selects comes from outside."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from strategies.answers import canonical, extract
from strategies.core.account import Account
from strategies.core.contracts import Progress
from strategies.search.mcts_node import Node, Noise, Rule
from strategies.search.step_search import StepSearch
from strategies.search.trajectory import Trajectory, to_ends


class Unscored(StepSearch):
    """A step search that scores nothing while it runs."""

    async def scored(self, children: Sequence[Trajectory], lookahead: int = 0) -> list[Trajectory]:
        return list(children)


class End(NamedTuple):
    """Where a rollout ended: its last node of the tree and the solution that it came to."""

    node: Node
    trajectory: Trajectory
    answer: str | None


@dataclass(slots=True)
class Tree:
    """One tree under way. Rollouts of a wave move in step, so that the same seed grows the same tree."""

    search: StepSearch
    account: Account
    root: Node
    rule: Rule
    exploration: float
    branch: int
    max_steps: int
    by_agreement: bool
    noise: Noise | None = None
    answers: Counter[str] = field(default_factory=Counter)
    """Of all solutions so far."""
    unfinished: list[Trajectory] = field(default_factory=list)
    """Solutions that reached `max_steps`."""
    _place: int = 0

    async def rollouts(self, n: int) -> Progress | None:
        """Select, expand, evaluate and back up, n times at once; tells if the deadline has them finished instead.

        Evaluated by the reward model, a rollout goes on selecting and expanding to a solution's end. By agreement, it
        expands once and samples the rest.
        """
        walks = self._down([self.root] * n)
        ends: list[End] = []
        expanded = False
        while True:
            ends += [End(node, node.trajectory, node.answer) for node in walks if self._is_end(node.trajectory)]
            walks = [node for node in walks if not self._is_end(node.trajectory)]
            if not walks or (expanded and self.by_agreement):
                break
            if self.search.is_late([node.trajectory for node in walks]):
                return await self._finish(walks)
            await self._expand(walks)
            walks, expanded = self._down(walks), True
        ends += await self._simulated(walks)
        for end in ends:
            end.node.leave()
            end.node.back_up(self.search.score(end.trajectory), end.answer)
        return None

    async def _finish(self, walks: Sequence[Node]) -> Progress:
        """Has each walk come to a solution's end, which takes part in the vote; nothing is backed up any more."""
        reached = list(dict.fromkeys(walks))
        return await self.search.finish(to_ends([node.trajectory for node in reached], self.branch), place=self._place)

    def growing(self) -> list[Trajectory]:
        """What can still be gone on from, and was not."""
        return [node.trajectory for node in self.root.frontier() if not self._is_end(node.trajectory)]

    def _down(self, walks: Sequence[Node]) -> list[Node]:
        """Each walk where the rule leads it: to a node that is not expanded, or to an end, which no other takes."""
        # Shares do not change while rollouts are under way.
        total = self.answers.total()
        shares = {answer: count / total for answer, count in self.answers.items()} if self.by_agreement else None
        reached = []
        for start in walks:
            node: Node | None = start
            while node and node.children:
                chosen = node.choose(self.rule, self.exploration, shares)
                if chosen is None:
                    node.leave()
                else:
                    chosen.pending += 1
                node = chosen
            if node is None:
                continue
            if node.closed:
                node.leave()
                continue
            if self._is_end(node.trajectory):
                node.close()
            reached.append(node)
        return reached

    async def _expand(self, nodes: Sequence[Node]) -> None:
        """Samples the next steps of each node at once; one whose steps all failed is closed."""
        nodes = list(dict.fromkeys(nodes))
        for node, grown in zip(nodes, await self._grow([(n.trajectory, self.branch) for n in nodes]), strict=True):
            priors = _priors(grown)
            if node is self.root and self.noise:
                priors = self.noise.mixed(priors)
            node.children = [
                Node(child, node, prior, self.search.score(child)) for child, prior in zip(grown, priors, strict=True)
            ]
            for child in node.children:
                if self._is_end(child.trajectory):
                    child.answer = await self._keep(child.trajectory)
            if not grown:
                node.close()

    async def _simulated(self, walks: Sequence[Node]) -> list[End]:
        """The rest of each walk's solution, one sample, step by step; walks that failed are left."""
        places = range(self._place, self._place + len(walks))
        self._place += len(walks)
        ends = await asyncio.gather(*(self._rest(w.trajectory, p) for w, p in zip(walks, places, strict=True)))
        done = []
        for node, end in zip(walks, ends, strict=True):
            if end:
                done.append(End(node, end, await self._keep(end)))
            else:
                node.leave()
        return done

    async def _rest(self, trajectory: Trajectory, place: int) -> Trajectory | None:
        while not self._is_end(trajectory):
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

    def _is_end(self, trajectory: Trajectory) -> bool:
        return trajectory.ended or len(trajectory.samples) >= self.max_steps

    async def _keep(self, end: Trajectory) -> str | None:
        """Lets a solution take part in the vote; its canonical answer where values come from answers."""
        (self.search.leaves if end.ended else self.unfinished).append(end)
        counted = self.by_agreement and not end.sample.withheld
        opening = self.search.task.opening
        said = extract(end.text, truncated=not end.sample.finished, opening=opening) if counted else None
        if said is None:
            return None
        answer = (await canonical([said], self.account.seconds_left))[0]
        self.answers[answer] += 1
        return answer


def _priors(children: Sequence[Trajectory]) -> list[float]:
    """Each step's share of the probabilities, by the mean of its tokens' (OpenR); equal ones where there are none."""
    weights = []
    for child in children:
        logprobs = [token.logprob for token in child.samples[-1].logprobs]
        weights.append(math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 1.0)
    return [weight / math.fsum(weights) for weight in weights]
