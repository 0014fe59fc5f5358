"""A Monte Carlo search tree: what each node has seen, and the rules that choose a child. Knows nothing of engines."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from strategies.search.trajectory import Trajectory

PUCT_BASE = 19652
"""Visits after which PUCT's exploration grows (AlphaZero, 1712.01815)."""


class Arm(NamedTuple):
    """One child, as a rule sees it."""

    mean: float
    """Of the values of its visits; before the first visit, what it is estimated at."""
    visits: int
    prior: float


Rule = Callable[[Arm, int, float], float]
"""(child, visits of all its siblings and itself, exploration constant) → its upper confidence bound."""


def uct(arm: Arm, total: int, exploration: float) -> float:
    """Mean + c sqrt(ln N / n); whatever was never visited comes first (Kocsis and Szepesvári 2006)."""
    return arm.mean + exploration * math.sqrt(math.log(total) / arm.visits) if arm.visits else math.inf


def puct(arm: Arm, total: int, exploration: float) -> float:
    """Mean + P (c + ln((N + base + 1) / base)) sqrt(N) / (1 + n) (1712.01815; OpenR 2410.09671)."""
    weight = exploration + math.log((total + PUCT_BASE + 1) / PUCT_BASE)
    return arm.mean + arm.prior * weight * math.sqrt(total) / (1 + arm.visits)


@dataclass(slots=True, eq=False)
class Node:
    """A state of the search: the steps so far."""

    trajectory: Trajectory
    parent: "Node | None" = None
    prior: float = 1.0
    estimate: float = 0.0
    """Its value before the first visit."""
    children: list["Node"] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    """The sum of the values of its visits, where a visit has a value of its own."""
    answer: str | None = None
    """Its own, if a solution ends here and values come from answers."""
    answers: Counter[str] = field(default_factory=Counter)
    """What its visits ended in, where values come from answers."""
    pending: int = 0
    """Rollouts under way through it. Each counts as a visit of value 0, so that the next one goes elsewhere."""
    closed: bool = False
    """Whether there is nothing below that was not visited."""

    def arm(self, shares: Mapping[str, float] | None) -> Arm:
        """With `shares`, the value of a visit is the share of its answer among all; else its own."""
        busy = self.visits + self.pending
        total = self.total
        if shares is not None:
            total = math.fsum(count * shares[answer] for answer, count in self.answers.items())
        return Arm(total / busy if busy else self.estimate, busy, self.prior)

    def choose(self, rule: Rule, exploration: float, shares: Mapping[str, float] | None = None) -> "Node | None":
        """The child of the highest bound that is not closed; ties go to the higher estimate, then to the first."""
        arms = [(child, child.arm(shares)) for child in self.children]
        total = sum(arm.visits for _, arm in arms)
        bounds = [(rule(arm, total, exploration), child.estimate, child) for child, arm in arms if not child.closed]
        return max(bounds, key=lambda bound: bound[:2])[2] if bounds else None

    def descend(self, rule: Rule, exploration: float, shares: Mapping[str, float] | None = None) -> "Node | None":
        """The open node without children to which the rule leads a rollout from here; None where there is none.

        The rollout is under way through every node that it passes, until it `leave`s.
        """
        node = self
        while node.children:
            chosen = node.choose(rule, exploration, shares)
            if chosen is None:
                node.leave()
                return None
            chosen.pending += 1
            node = chosen
        if node.closed:
            node.leave()
            return None
        return node

    def close(self) -> None:
        """Closes it, and each ancestor that has nothing else open."""
        node: Node | None = self
        while node and all(child.closed for child in node.children):
            node.closed = True
            node = node.parent

    def leave(self) -> None:
        """A rollout that came through here has ended."""
        for node in self.lineage():
            node.pending -= 1

    def back_up(self, value: float, answer: str | None) -> None:
        """Counts one visit, here and above."""
        for node in self.lineage():
            node.visits += 1
            node.total += value
            if answer is not None:
                node.answers[answer] += 1

    def lineage(self) -> Iterator["Node"]:
        """It and its ancestors, without the root."""
        node = self
        while node.parent:
            yield node
            node = node.parent

    def frontier(self) -> Iterator["Node"]:
        """What was never expanded below."""
        stack = [self]
        while stack:
            node = stack.pop()
            stack += reversed(node.children)
            if not node.children:
                yield node


@dataclass(frozen=True, slots=True)
class Noise:
    """Dirichlet noise in the root's priors (1712.01815)."""

    weight: float
    alpha: float
    rng: random.Random

    def mixed(self, priors: Sequence[float]) -> list[float]:
        draws = [self.rng.gammavariate(self.alpha, 1) for _ in priors]
        total = math.fsum(draws) or 1.0
        return [(1 - self.weight) * p + self.weight * draw / total for p, draw in zip(priors, draws, strict=True)]


def step_priors(siblings: Sequence[Trajectory]) -> list[float]:
    """Each last step's share of the probabilities, by the mean of its tokens' (OpenR); equal without logprobs."""
    weights = []
    for sibling in siblings:
        logprobs = [token.logprob for token in sibling.samples[-1].logprobs]
        weights.append(math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 1.0)
    return [weight / math.fsum(weights) for weight in weights]
