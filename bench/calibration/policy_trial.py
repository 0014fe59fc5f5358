"""What a policy comes to on problems that it was not fitted on, against each arm alone at the same number of tokens.

Whatever is spent is counted: pilots, what their scoring takes, samples that a search after a vote leaves unused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.calibration.arms import Floats, Trials
from bench.calibration.difficulty_fit import FOLDS, Reliability, folds_of, reliability
from bench.calibration.policy_fit import EDGES, ArmCell, Bins, Fitted, bins_of, cells_of, fitted
from bench.stats.comparisons import differences
from bench.stats.intervals import Difference
from strategies.allocation.policy_table import Cell, choose
from strategies.allocation.shared_budget import SharedBudget, increments

Menu = Sequence[Sequence[ArmCell]]
"""What can be bought in each bin, cheapest first."""


@dataclass(frozen=True)
class HeldOut:
    """Each problem as policies see it that were fitted on others."""

    trials: Trials
    policies: tuple[Fitted, ...]
    """One a fold."""
    fold: tuple[int, ...]
    """Of each problem: which policy has not seen it."""
    probability: Floats
    """Predicted of each pilot, problems x draws."""
    bins: Bins
    oracle_bins: Bins
    """By the share of right samples in the whole pool, which no server knows."""
    oracle_menus: tuple[Menu, ...]
    """One a fold: as the policies', of oracle bins."""

    @property
    def menus(self) -> list[Menu]:
        """By problem."""
        return [self.policies[fold].cells for fold in self.fold]

    @property
    def with_oracle(self) -> list[Menu]:
        """By problem, for oracle bins."""
        return [self.oracle_menus[fold] for fold in self.fold]

    @property
    def reliability(self) -> list[Reliability]:
        """What was predicted against what was so."""
        return reliability(self.probability, self.trials.ability)


def held_out(trials: Trials, edges: Sequence[float] = EDGES, *, folds: int = FOLDS, seed: int = 0) -> HeldOut:
    """Fits a policy for each part of the problems on all the others.

    Raises:
        RuntimeError: scikit-learn is not installed.
        ValueError: there are too few problems for so many folds.
    """
    problems = len(trials.ids)
    oracle = bins_of(trials.oracle, edges)
    probability, fold = np.zeros(trials.ability.shape), np.zeros(problems, dtype=int)
    policies, oracle_menus = [], []
    for number, part in enumerate(folds_of(problems, folds, seed)):
        rest = np.setdiff1d(np.arange(problems), part)
        policies.append(fitted(trials.of(rest), edges, folds=folds, seed=seed))
        oracle_menus.append(cells_of(trials.of(rest), oracle[rest], len(edges) + 1))
        probability[part] = policies[-1].difficulty(trials.features[part])
        fold[part] = number
    return HeldOut(
        trials,
        tuple(policies),
        tuple(map(int, fold)),
        probability,
        bins_of(probability, edges),
        oracle,
        tuple(oracle_menus),
    )


class Spending(NamedTuple):
    """What came of a budget: problems x draws."""

    right: Floats
    total: Floats
    """Tokens of the policy and of the reward model."""
    arms: Bins
    """Which arm each question ended with."""

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def tokens(self) -> float:
        """A question."""
        return float(self.total.mean())


def spend(trials: Trials, menus: Sequence[Menu], bins: Bins, budgets: Floats) -> Spending:
    """A shared budget for each draw, spread over its questions by marginal gain (2410.04707).

    Args:
        trials: of the questions.
        menus: of each question.
        bins: in which each of its pilots was seen.
        budgets: tokens of all questions together, one a draw.
    """
    problems, draws = trials.shape
    arms, total = np.zeros((problems, draws), dtype=int), np.zeros((problems, draws))
    for draw in range(draws):
        chosen = [menus[i][bins[i, draw]] for i in range(problems)]
        arms[:, draw], total[:, draw] = _spend(trials, chosen, draw, float(budgets[draw]))
    return Spending(picked(trials.after.right, arms), total, arms)


def picked(figures: Floats, arms: Bins) -> Floats:
    """Of each problem and draw, that of its arm."""
    return np.asarray(np.take_along_axis(figures, arms[None], axis=0)[0])


def _spend(
    trials: Trials, menus: Sequence[Sequence[ArmCell]], draw: int, tokens: float
) -> tuple[list[int], list[float]]:
    """The arm that each question of one draw ends with, and what it cost."""
    budget, place = SharedBudget(tokens), [0] * len(menus)
    steps = [increments([cell.point for cell in menu]) for menu in menus]
    paid = [float(trials.after.total[menu[0].arm, i, draw]) for i, menu in enumerate(menus)]
    budget.pay(0.0, sum(paid))

    def offer(i: int) -> None:
        if place[i] < len(steps[i]) and not trials.agreed[i, draw]:
            budget.offer(i, steps[i][place[i]])

    for i in range(len(menus)):
        offer(i)
    while bought := budget.buy():
        i = bought.question
        here, there = (menus[i][place[i] + step].arm for step in (0, 1))
        cost = _extra(trials, here, there, i, draw)
        budget.pay(bought.increment.reserve, cost)
        paid[i] += cost
        place[i] += 1
        offer(i)
    return [menu[at].arm for menu, at in zip(menus, place, strict=True)], paid


def _extra(trials: Trials, here: int, there: int, problem: int, draw: int) -> float:
    """What it costs to go on to another arm; a vote goes on from a smaller one, a search from the pilot."""
    goes_on = trials.arms[here].is_vote and trials.arms[there].is_vote
    before = here if goes_on else 0
    parts = (trials.after.tokens, trials.after.prm_tokens)
    return sum(max(0.0, float(part[there, problem, draw] - part[before, problem, draw])) for part in parts)


def choose_each(held: HeldOut, limit: float) -> Spending:
    """Every question has so many tokens of its own, and chooses as the server does what fits nearly always (p95)."""

    def fits(cell: Cell) -> bool:
        return cell.tokens.p95 + cell.prm_tokens.p95 <= limit

    taken = np.array([[best_within(menu, fits) for menu in policy.cells] for policy in held.policies])
    arms = taken[np.array(held.fold)[:, None], held.bins]
    after = held.trials.after
    return Spending(picked(after.right, arms), picked(after.total, arms), arms)


def best_within(menu: Sequence[ArmCell], fits: Callable[[Cell], bool]) -> int:
    """The arm that the server takes in a bin; the cheapest where none fits."""
    chosen = choose([cell for _, cell in menu if fits(cell)])
    return next((arm for arm, cell in menu if cell is chosen), menu[0].arm)


class Contest(NamedTuple):
    """The policy with as many tokens altogether as one arm takes for all."""

    arm: int
    alone: Spending
    policy: Spending
    gap: Difference
    """Of the policy's accuracy from the arm's, with a paired bootstrap's 95 % over problems."""


class Alone(NamedTuple):
    """An arm that answers all questions, without a pilot."""

    arm: int
    tokens: float
    """A question, of the policy and of the reward model."""
    accuracy: float


def arms_alone(trials: Trials) -> list[Alone]:
    """Every arm."""
    right, total = trials.alone.right.mean(axis=(1, 2)), trials.alone.total.mean(axis=(1, 2))
    return [Alone(arm, float(total[arm]), float(right[arm])) for arm in range(len(trials.arms))]


def unbeaten(arms: Sequence[Alone]) -> list[Alone]:
    """Those that no other beats at no more tokens, by rising cost."""
    best: list[Alone] = []
    for alone in sorted(arms, key=lambda alone: (alone.tokens, -alone.accuracy)):
        if not best or alone.accuracy > best[-1].accuracy:
            best.append(alone)
    return best


def contests(held: HeldOut, *, oracle: bool = False, seed: int = 0) -> list[Contest]:
    """The policy against every arm that costs at least what the pilots do."""
    trials = held.trials
    menus, bins = (held.with_oracle, held.oracle_bins) if oracle else (held.menus, held.bins)
    alone = trials.alone.total
    dear = [arm for arm in range(len(trials.arms)) if alone[arm].mean() >= trials.after.total[0].mean() * (1 - 1e-9)]
    policies = [spend(trials, menus, bins, alone[arm].sum(axis=0)) for arm in dear]
    gaps = differences(
        [list(policy.right.mean(axis=1)) for policy in policies],
        [list(trials.alone.right[arm].mean(axis=1)) for arm in dear],
        seed=seed,
    )
    return [
        Contest(arm, Spending(trials.alone.right[arm], alone[arm], np.full_like(bins, arm)), policy, gap)
        for arm, policy, gap in zip(dear, policies, gaps, strict=True)
    ]


def rivals(held: HeldOut, found: Sequence[Contest]) -> list[Contest]:
    """Those against the arms that no other beats, dearer than a pilot or cheaper."""
    by_arm = {contest.arm: contest for contest in found}
    return [by_arm[alone.arm] for alone in unbeaten(arms_alone(held.trials)) if alone.arm in by_arm]


class Saving(NamedTuple):
    """Tokens a question that the policy needs for what an arm alone reaches."""

    arm: int
    accuracy: float
    alone: float
    policy: float | None
    """None where it does not get there with any budget."""


def savings(held: HeldOut, found: Sequence[Contest], steps: int = 24) -> list[Saving]:
    """By budgets from the pilots' cost to the dearest arm's, between which accuracy is taken to rise evenly."""
    trials = held.trials
    least, most = trials.after.total[0].mean(), trials.after.total.mean(axis=(1, 2)).max()
    curve = [
        spend(trials, held.menus, held.bins, np.full(trials.shape[1], tokens * len(trials.ids)))
        for tokens in np.linspace(least, most, steps)
    ]
    return [
        Saving(contest.arm, contest.alone.accuracy, contest.alone.tokens, _reached(curve, contest.alone.accuracy))
        for contest in found
    ]


def _reached(curve: Sequence[Spending], accuracy: float) -> float | None:
    for before, after in zip([curve[0], *curve], curve, strict=False):
        if after.accuracy >= accuracy:
            rise = after.accuracy - before.accuracy
            share = (accuracy - before.accuracy) / rise if rise > 0 else 1.0
            return before.tokens + max(0.0, share) * (after.tokens - before.tokens)
    return None
