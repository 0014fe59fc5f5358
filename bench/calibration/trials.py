"""What each way to spend a request's tokens would have come to, reckoned from stored samples and stored searches.

A problem's pool of samples is shuffled some times. The first of each order are the pilot, and a vote over k samples is
one over the first k, so that it goes on from the pilot as the server does. A search's own record says what it reached;
its pilot is paid on top.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calibration.arms import Arm, Floats, Outcomes, Places, Trials, vote_arms
from bench.rescoring.estimates import Stored
from bench.rescoring.pools import Answered, Pool, attempt_of, failed
from bench.stored.records import Record, RecordError
from prm import Aggregation
from strategies.allocation.difficulty import FEATURES, Attempt, features
from strategies.allocation.policy_table import PROMPT_OPTIONS
from strategies.answers.voting import vote
from strategies.core.contracts import Selector
from strategies.sampling.stopping import is_settled, is_unanimous

PILOT = 4
"""Samples of a pilot: a vote is not settled at 95 % before four agree (2305.11860)."""
OF_REQUESTS = ("prm", "budget", *PROMPT_OPTIONS)
"""In `tts` beside the strategy's own options."""
SURE = 0.95
"""Where a vote that stops by itself stops: the strategy's default."""


class Setting(NamedTuple):
    """How trials are made."""

    pilot: int = PILOT
    draws: int = 16
    """Orders of each problem's samples."""
    sizes: Sequence[int] = ()
    """Of the votes; none is the pilot, twice as many … and all."""
    scored: bool = True
    """Whether pilots are scored, and votes may be weighed, where the samples have scores."""
    selectors: Sequence[Selector] = ("weighted", "best")
    """Of the votes that the reward model weighs."""
    aggregations: Sequence[Aggregation] = ()
    """Of the scores in votes; none is as they are stored."""
    seed: int = 0


def trials(pool: Stored, searches: Sequence[Stored], setting: Setting) -> Trials:
    """What the arms would have come to on a pool's problems; those that the server refused whole are left out.

    Args:
        pool: independent samples, more than a pilot's of each problem.
        searches: runs of other strategies on the same problems, one answer each.
        setting: how trials are made.

    Raises:
        RecordError: the samples are no pool, are too few or do not tell their tokens, or a search lacks a problem or
            a figure.
    """
    scored = setting.scored and pool.lacking(None) is None
    pooled = [_Pooled.of(problem, scored) for problem in pool.problems if problem.answers]
    arms = _votes(pool, min(problem.n for problem in pooled), setting, scored)
    plays = [_play(problem, arms, setting) for problem in pooled]
    found = [_searched(search, [problem.record.id for problem in pooled]) for search in searches]
    alone, after = (np.stack([play[i] for play in plays], axis=2) for i in (2, 3))
    agreed = np.stack([play.agreed for play in plays])
    for search in found:
        own = np.broadcast_to(search.figures[:, None, :, None], (4, 1, *agreed.shape))
        # Its own answer, at the pilot's cost and its own.
        behind = own + after[:, :1] * np.array([0, 1, 1, 1])[:, None, None, None]
        alone = np.concatenate([alone, own], axis=1)
        after = np.concatenate([after, np.where(agreed, after[:, :1], behind)], axis=1)
    return Trials(
        ids=tuple(problem.record.id for problem in pooled),
        arms=(*arms, *(search.arm for search in found)),
        names=FEATURES,
        features=np.stack([play.features for play in plays]),
        ability=np.stack([play.ability for play in plays]),
        oracle=np.array([np.full(setting.draws, problem.correct.mean()) for problem in pooled]),
        agreed=agreed,
        alone=Outcomes(*alone),
        after=Outcomes(*after),
    )


def _votes(pool: Stored, fewest: int, setting: Setting, scored: bool) -> list[Arm]:
    """Votes over the pilot, twice as many … and all; each selector that the samples allow."""
    if pool.dependent:
        raise RecordError(f"{pool.path}: the candidates of {pool.dependent} are no independent samples: no pool")
    if fewest <= setting.pilot:
        raise RecordError(
            f"{pool.path}: a problem has {fewest} samples: a pilot of {setting.pilot} leaves none to learn from"
        )
    sizes = [setting.pilot << i for i in range(fewest) if setting.pilot << i < fewest] + [fewest]
    arms = vote_arms(setting.pilot, setting.sizes or sizes, ["majority"])
    hows: Sequence[Aggregation | None] = setting.aggregations or [None]
    for how in hows if scored else ():
        arms += vote_arms(setting.pilot, setting.sizes or sizes, setting.selectors, how)
    return arms


class _Pooled(NamedTuple):
    """A problem's samples that came to something."""

    record: Record
    problem: Answered
    places: NDArray[np.int64]
    """Of them among all."""
    scored: bool
    tokens: Floats
    reading: float
    """Tokens of the reward model a sample, which are told of all together; 0 where it is not used."""
    pace: float
    """Seconds a generated token, all of them drawn at once; 0 where nobody told the time."""
    correct: Floats

    @property
    def n(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, problem: Answered, scored: bool) -> "_Pooled":
        record = problem.record
        sound = np.array([i for i, sample in enumerate(record.samples) if not failed(sample)])
        tokens = np.array([_told(record.samples[i].completion_tokens, record, "completion_tokens") for i in sound])
        reading = _told(record.usage.prm_tokens, record, "usage.prm_tokens") / max(1, len(sound)) if scored else 0.0
        pace = (record.latency_s or 0.0) / max(1.0, float(tokens.sum()))
        correct = np.array(problem.correct, dtype=float)[sound]
        return cls(record, problem, sound, scored, tokens, reading, pace, correct)

    def attempt(self, place: int) -> Attempt:
        """What the features look at of a sample."""
        i = int(self.places[place])
        return attempt_of(self.record.samples[i], self.problem.keys[i], scored=self.scored)

    def cost(self, spent: Floats, k: int, read: int) -> list[float]:
        """Tokens, those of the reward model and seconds: of k samples, so many of them scored; `spent` adds up."""
        tokens = float(spent[k - 1])
        return [tokens, self.reading * read, self.pace * tokens]


class _Play(NamedTuple):
    """One problem's draws."""

    features: Floats
    ability: Floats
    alone: Floats
    """Right or not, generated tokens, tokens of the reward model, seconds: of arms x draws each."""
    after: Floats
    agreed: NDArray[np.bool_]
    """Whether the pilot is the answer."""


def _play(problem: _Pooled, arms: Sequence[Arm], setting: Setting) -> _Play:
    pools = {how: problem.problem.pool(how) for how in {arm.aggregation for arm in arms}}
    told, ability, agreed = [], np.zeros(setting.draws), np.zeros(setting.draws, dtype=bool)
    alone, after = np.zeros((2, 4, len(arms), setting.draws))
    for draw, order in enumerate(_orders(problem.record.id, problem.n, setting)):
        told.append(list(features([problem.attempt(place) for place in order[: setting.pilot]]).values()))
        ability[draw] = problem.correct[order[setting.pilot :]].mean()
        spent = problem.tokens[order].cumsum()
        votes = _Votes(problem, pools, order)
        agreed[draw] = _agrees(votes.keys[: setting.pilot])
        settled = _settled_at(votes.keys)
        for place, arm in enumerate(arms):
            n = arm.samples or problem.n
            k = min(settled, n) if arm.alone_only else n
            won = votes.right(k, arm.selector, arm.aggregation)
            alone[:, place, draw] = [won, *problem.cost(spent, k, k if arm.scored else 0)]
            k = _stops_at(votes.keys, n, setting.pilot, arm.selector)
            read = 0 if agreed[draw] else k if arm.scored and k == n else setting.pilot
            won = won if k == n and not agreed[draw] else votes.right(k, "majority", None)
            after[:, place, draw] = [won, *problem.cost(spent, k, read)]
    return _Play(np.array(told), ability, alone, after, agreed)


class _Votes:
    """Votes over the first samples of an order; each is taken once."""

    def __init__(self, problem: _Pooled, pools: Mapping[Aggregation | None, Pool], order: Places) -> None:
        self.keys = [problem.problem.keys[i] for i in problem.places[order]]
        self._problem = problem
        self._pools = pools
        self._order = order
        self._known: dict[tuple[int, Selector, Aggregation | None], float] = {}

    def right(self, k: int, selector: Selector, aggregation: Aggregation | None) -> float:
        """1 if the first k samples' vote is right."""
        known = (k, selector, aggregation)
        if known not in self._known:
            places = self._problem.places[self._order[:k]]
            candidates = [self._pools[aggregation].candidates[i] for i in places]
            returned = vote(candidates, self.keys[:k], selector).ranking[0]
            self._known[known] = float(self._problem.correct[self._order[returned]])
        return self._known[known]


def _agrees(pilot: Sequence[str | None]) -> bool:
    """Whether a pilot is the answer."""
    return is_unanimous(pilot, len(pilot)) and is_settled(pilot, SURE)


def _settled_at(keys: Sequence[str | None]) -> int:
    """How many samples a vote takes that stops by itself; all if it never does."""
    return next((k for k in range(1, len(keys)) if is_settled(keys[:k], SURE)), len(keys))


def _stops_at(keys: Sequence[str | None], n: int, pilot: int, selector: Selector) -> int:
    """How many of n samples `compute_optimal` draws: each wave doubles what there is, until the vote is settled.

    The best of n is that of all n.
    """
    if _agrees(keys[:pilot]):
        return pilot
    waves = (pilot << i for i in range(1, n) if pilot << i < n) if selector != "best" else ()
    return next((k for k in waves if is_settled(keys[:k], SURE)), n)


def _orders(name: str, n: int, setting: Setting) -> list[NDArray[np.int64]]:
    """Of a problem's samples; the same whichever other problems there are."""
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    random = np.random.default_rng([setting.seed, own])
    return [random.permutation(n) for _ in range(setting.draws)]


class _Searched(NamedTuple):
    """A run of a strategy, as an arm."""

    arm: Arm
    figures: Floats
    """Right or not, generated tokens, tokens of the reward model, seconds: of each problem."""


def _searched(search: Stored, names: Sequence[str]) -> _Searched:
    if search.manifest is None or search.manifest.settings.strategy is None:
        raise RecordError(f"{search.path}: no manifest says which strategy this is")
    records = {problem.record.id: problem.record for problem in search.problems}
    if lacking := [name for name in names if name not in records]:
        raise RecordError(f"{search.path}: {len(lacking)} problems of the pool are not in it, such as {lacking[0]!r}")
    settings = search.manifest.settings
    if settings.options.get("budget"):
        raise RecordError(f"{search.path}: its requests had a budget of their own, which no arm has")
    # What is the request's is the pool's too.
    options = {name: value for name, value in settings.options.items() if name not in OF_REQUESTS}
    figures = np.array([_figures(records[name]) for name in names]).T
    return _Searched(Arm(str(settings.strategy), options), figures)


def _figures(record: Record) -> list[float]:
    if record.error is not None:
        return [0.0, 0.0, 0.0, 0.0]
    if record.correct is None:
        raise RecordError(f"record {record.id!r} has no `correct`: the runs of searches are graded ones")
    tokens = _told(record.usage.completion_tokens, record, "usage.completion_tokens")
    return [float(record.correct), tokens, float(record.usage.prm_tokens or 0), record.latency_s or 0.0]


def _told(count: float | None, record: Record, field: str) -> float:
    if count is None:
        raise RecordError(f"record {record.id!r} does not tell {field}, which the cost is reckoned from")
    return float(count)
