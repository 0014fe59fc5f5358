"""A policy in the toy world: fitted on some questions, judged on others against what closed forms say is best."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bench.calibration.arms import Arm, Floats, Places, Trials
from bench.calibration.difficulty_fit import calibration_error, reliability
from bench.calibration.policy_fit import Fitted, Origin, bins_of, fitted, policy_of
from bench.calibration.policy_trial import Menu, best_within, picked, spend
from bench.calibration.trials import Setting, trials
from bench.simulation.closed_forms import best_of_n_accuracy, majority_accuracy
from bench.simulation.simulate import SearchOutcome, solve
from bench.simulation.toy_pools import toy_pool
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import World
from bench.stats.comparisons import differences
from bench.stats.intervals import Difference
from strategies import get
from strategies.allocation.policy_table import Cell, InUse, Policy
from strategies.core.account import Account, Budget


class Kind(NamedTuple):
    """Questions of one difficulty."""

    depth: int
    p_step: float

    @property
    def world(self) -> World:
        return World(0, depth=self.depth, p_step=self.p_step, wrong=WRONG)


PLAIN = {"easy": Kind(4, 0.915), "medium": Kind(5, 0.81), "hard": Kind(7, 0.695)}
"""70, 35 and 8 % of samples are right, one of each bin; and the harder a question, the longer its solutions."""
HIDDEN = {"easy": Kind(5, 0.93), "medium": Kind(5, 0.81), "hard": Kind(5, 0.6)}
"""The same, of one length: only votes and scores tell them apart, which four samples do not always."""
Kinds = Mapping[str, Kind]
QUALITY = 0.2
"""Of the reward model: better than the vote where that finds a wrong answer, and worse where it finds the right one."""
WRONG = (0.2, 0.16, 0.14, 0.12, 0.1, 0.1, 0.09, 0.09)
"""On a hard question the likeliest wrong answer is twice as likely as the right one, on others a vote finds the right
one."""
SIZES = (4, 6, 8, 12, 16, 24, 32)
"""Samples of a vote."""
GENERATED, READ = 1900, 1250
"""Tokens that a question may generate, and have read by the reward model: 32 votes, or the best of 16."""
LIMIT = GENERATED + READ
BUDGETS = (450, 600, 850, 1200, 1700)
"""Tokens a question, of a budget for all."""
DRAWS = 4
"""Pilots of each question to fit on; those to judge on have one."""
SEARCHES = 16
"""At once."""
_HELD_OUT = 1_000_000
"""The first number of the questions to judge on."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best arm of one difficulty, and what the policy takes in the bin that the difficulty belongs to."""

    difficulty: str
    p: float
    arm: Arm
    accuracy: float
    """By the closed form, as the next."""
    chosen: Arm
    of_chosen: float


class Live(NamedTuple):
    """What the strategy itself came to."""

    accuracy: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Rivalry:
    """The policy and one kind of arm with a budget for all questions."""

    tokens: float
    """A question."""
    policy: float
    spent: float
    rival: str
    alone: float
    gap: Difference


@dataclass(frozen=True, slots=True)
class ToyFindings:
    """What came out."""

    calibration: int
    questions: int
    ece: float
    best: tuple[Best, ...]
    gap: float
    """Between the worst and the best arm that is the same for all questions."""
    regret: Difference
    """Of the oracle's accuracy from the policy's."""
    live: Live
    live_regret: Difference
    shared: tuple[Rivalry, ...]


def worlds(kinds: Kinds, first: int, number: int) -> list[World]:
    """Questions of all difficulties in turn."""
    each = [kind.world for kind in kinds.values()]
    return [replace(each[i % len(each)], seed=first + i) for i in range(number)]


def prove(kinds: Kinds, calibration: int, questions: int, seed: int = 0) -> ToyFindings:
    """Fits on some questions and judges on others.

    Raises:
        RuntimeError: scikit-learn is not installed.
    """
    prm = ToyPRM(QUALITY, seed=seed)
    setting = Setting(draws=DRAWS, sizes=SIZES, selectors=("best",), seed=seed)
    first = 10 * _HELD_OUT * seed
    asked = worlds(kinds, first + _HELD_OUT, questions)
    known = trials(toy_pool(worlds(kinds, first, calibration), prm, SIZES[-1]), (), setting)
    new = trials(toy_pool(asked, prm, SIZES[-1]), (), setting._replace(draws=1))
    found = fitted(known, seed=seed)
    told = found.difficulty(new.features)
    ece = calibration_error(reliability(told, new.ability))
    bins = bins_of(told, found.edges)
    taken = np.array([best_within(menu, _fits) for menu in found.cells])
    names = list(kinds)
    # The questions are of each difficulty in turn.
    oracle = [best_arm(new.of(range(i, questions, len(kinds))), kind, prm) for i, kind in enumerate(kinds.values())]
    origin = Origin("toy", prm.name, "", f"{calibration} questions of the toy world, seed {seed}", setting.pilot)
    outcomes = asyncio.run(_solved(policy_of(found, origin, ece, calibration), asked, prm, seed))
    ideal = new.alone.right.mean(axis=2)[[oracle[i % len(kinds)] for i in range(questions)], np.arange(questions)]
    chosen = picked(new.after.right, taken[bins]).mean(axis=1)
    itself = [float(outcome.correct) for outcome in outcomes]
    regrets = differences([list(ideal)] * 2, [list(chosen), itself], seed=seed)
    costs = [outcome.completion_tokens + outcome.prm_tokens for outcome in outcomes]
    return ToyFindings(
        calibration,
        questions,
        ece,
        tuple(_best(new, name, kinds[name], found, arm, taken, prm) for name, arm in zip(names, oracle, strict=True)),
        _gap(new, kinds, prm),
        regrets[0],
        Live(float(np.mean(itself)), float(np.mean(costs))),
        regrets[1],
        tuple(row for tokens in BUDGETS for row in _rivalries(new, found.cells, bins, tokens, seed)),
    )


def _fits(cell: Cell) -> bool:
    return cell.tokens.p95 <= GENERATED and cell.prm_tokens.p95 <= READ


def reached(arm: Arm, kind: Kind, prm: ToyPRM) -> float:
    """What the closed forms say that a vote, or the best by score, reaches."""
    world, n = kind.world, arm.samples or 1
    if arm.selector == "best":
        return best_of_n_accuracy(world.p_solve, n, prm)
    return majority_accuracy(world.p_solve, list(world.answers.values())[1:], n)


def fitting(made: Trials) -> list[int]:
    """The arms that have closed forms and stay within a question's limits."""
    generated, read = (part.mean(axis=(1, 2)) for part in (made.alone.tokens, made.alone.prm_tokens))
    return [
        place
        for place, arm in enumerate(made.arms)
        if not arm.alone_only and generated[place] <= GENERATED and read[place] <= READ
    ]


def best_arm(made: Trials, kind: Kind, prm: ToyPRM) -> int:
    """Of questions of one kind, by the closed forms; the cheaper of equals."""
    cost = made.alone.total.mean(axis=(1, 2))
    return max(fitting(made), key=lambda i: (round(reached(made.arms[i], kind, prm), 6), -cost[i]))


def _best(made: Trials, name: str, kind: Kind, found: Fitted, arm: int, taken: Places, prm: ToyPRM) -> Best:
    p = kind.world.p_solve
    place = int(bins_of(np.array(p), found.edges))
    arms = made.arms[arm], made.arms[taken[place]]
    best, chosen = (reached(each, kind, prm) for each in arms)
    return Best(name, p, arms[0], best, arms[1], chosen)


def _gap(made: Trials, kinds: Kinds, prm: ToyPRM) -> float:
    means = [np.mean([reached(made.arms[i], kind, prm) for kind in kinds.values()]) for i in fitting(made)]
    return float(max(means) - min(means))


async def _solved(policy: Policy, asked: Sequence[World], prm: ToyPRM, seed: int) -> list[SearchOutcome]:
    entry, places = get("compute_optimal"), asyncio.Semaphore(SEARCHES)
    options = {name: field.default for name, field in entry.options.model_fields.items()}

    async def answer(world: World) -> SearchOutcome:
        budget = Budget(max_tokens=GENERATED, max_prm_tokens=READ)
        async with places:
            account = Account(budget, policy=InUse(policy))
            return await solve(entry, options, world, prm, world.seed + seed, account)

    return list(await asyncio.gather(*map(answer, asked)))


def _rivalries(made: Trials, menu: Menu, bins: Places, tokens: int, seed: int) -> list[Rivalry]:
    problems, draws = made.shape
    policy = spend(made, [menu] * problems, bins, np.full(draws, float(tokens * problems)))
    kinds: dict[str, list[int]] = {}
    for place, arm in enumerate(made.arms):
        kind = "best_of_n" if arm.selector == "best" else "self_consistency"
        kinds.setdefault(f"{kind}, stopping by itself" if arm.alone_only else kind, []).append(place)
    rows = []
    for kind, places in kinds.items():
        alone = mixed(made, places, tokens)
        if alone is None:
            continue
        (gap,) = differences([list(policy.right.mean(axis=1))], [list(alone)], seed=seed)
        rows.append(Rivalry(tokens, policy.accuracy, policy.tokens, kind, float(alone.mean()), gap))
    return rows


def mixed(made: Trials, places: Sequence[int], tokens: float) -> Floats | None:
    """Accuracy a problem, of the two sizes of an arm that cost next less and next more, mixed so as to cost `tokens`.

    The largest where it costs no more; None where the smallest costs more.
    """
    ordered = sorted(places, key=lambda place: float(made.alone.total[place].mean()))
    costs = [float(made.alone.total[place].mean()) for place in ordered]
    right = [np.asarray(made.alone.right[place].mean(axis=1)) for place in ordered]
    if tokens < costs[0]:
        return None
    if tokens >= costs[-1]:
        return right[-1]
    above = next(i for i, cost in enumerate(costs) if cost > tokens)
    share = (tokens - costs[above - 1]) / (costs[above] - costs[above - 1])
    return np.asarray((1 - share) * right[above - 1] + share * right[above])
