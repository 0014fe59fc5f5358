"""Selectors: which of several candidates is returned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from strategies.answers.normal_forms import decimal
from strategies.core.contracts import Candidate, Selector, Vote

SCORE_DIGITS = 4
"""Of scores and weights: a softmax rounds further digits in one way or another."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a selector decided."""

    ranking: tuple[int, ...]
    """Every candidate's index, best first; equal answers stand behind distinct ones."""
    weights: tuple[float, ...]
    """What each candidate counted for, in the candidates' order; 0 for those that took no part."""
    votes: tuple[Vote, ...]
    """One for each distinct answer, heaviest first."""
    confidence: float | None
    """The first answer's share of the vote, or its score with `best`; None where nothing was voted or scored."""


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Candidates with one answer, or a single one without."""

    members: tuple[int, ...]
    """Best first."""
    weight: float
    precedence: tuple[float, ...]
    """Sorts the better cluster first; those that are seen first stand before their equals."""
    answer: str | None
    """As a number where a member gives it as such, else as the best member does."""
    forms: frozenset[str]
    """All that the members say."""


def vote(candidates: Sequence[Candidate], keys: Sequence[str | None], selector: Selector) -> Outcome:
    """Ranks candidates: `majority` (2203.11171) by count, `weighted` (2206.02336) by sum of scores, `best` by score.

    `keys` are the canonical answers, None for a candidate without one. Scores and weights that differ by less than
    they are computed to are equal; among equals the answer with more votes stands first, then that with the higher sum
    of scores, then that of which the model was surer where all samples have logprobs, then the first seen.

    Failed candidates stand last, behind those that were filtered or refused, which have a vote only where nothing else
    came, and behind those that are not in the form that was asked for. Those without an answer have no vote, and a
    chance with `best` only if they are finished and in that form. A missing or negative score weighs 0. Without any
    score the majority decides; without any answer the score, then who finished first, then who got furthest.

    Raises:
        ValueError: there is not one key for each candidate.
    """
    if len(keys) != len(candidates):
        raise ValueError(f"{len(candidates)} candidates need as many keys, got {len(keys)}")
    everyone = range(len(candidates))
    failed = {i for i in everyone if candidates[i].sample.finish_reason == "error"}
    sound = [i for i in everyone if i not in failed]
    withheld = {i for i in sound if candidates[i].sample.withheld}
    if len(withheld) == len(sound):
        withheld = set()
    sound = [i for i in sound if i not in withheld]
    if all(keys[i] is None for i in sound):
        selector = "best"
    elif all(candidates[i].score is None for i in sound):
        selector = "majority"
    chance = {i for i in sound if candidates[i].sample.finished and not candidates[i].sample.malformed}
    voters = {i for i in sound if keys[i] is not None or (selector == "best" and i in chance)}
    weights = tuple(_weight(candidates[i], selector) if i in voters else 0.0 for i in everyone)

    clusters = _clusters(candidates, keys, sorted(voters), weights, selector)
    distinct = [cluster.members[0] for cluster in clusters]
    equal = [i for cluster in clusters for i in cluster.members[1:]]
    rest = sorted(set(sound) - voters, key=lambda i: (i not in chance, _demerit(candidates[i]), i))
    votes = tuple(Vote(c.answer, len(c.members), c.weight, c.forms) for c in clusters if c.answer is not None)
    return Outcome(
        (*distinct, *equal, *rest, *sorted(withheld), *sorted(failed)),
        weights,
        votes,
        _confidence(candidates, clusters, selector),
    )


def _weight(candidate: Candidate, selector: Selector) -> float:
    return 1.0 if selector == "majority" else max(0.0, candidate.score or 0.0)


def _demerit(candidate: Candidate) -> tuple[float, bool, bool, int]:
    """Sorts the better candidate first: by score, then with an answer, then finished, then the longer unfinished."""
    finished = candidate.sample.finished
    score = -math.inf if candidate.score is None else round(candidate.score, SCORE_DIGITS)
    return -score, candidate.answer is None, not finished, 0 if finished else -len(candidate.text)


def _is_plain(answer: str | None, key: str | None) -> bool:
    """Whether it is the value itself, 72 rather than `48 + 24`."""
    return answer is not None and (answer == key or decimal(answer) is not None)


def _clusters(
    candidates: Sequence[Candidate],
    keys: Sequence[str | None],
    voters: Sequence[int],
    weights: Sequence[float],
    selector: Selector,
) -> list[_Cluster]:
    """The voters by answer, heaviest first, ties as `vote` says."""
    sureness = _sureness(candidates, voters)
    groups: dict[str | int, list[int]] = {}
    for i in voters:
        key = keys[i]
        groups.setdefault(i if key is None else key, []).append(i)
    clusters = []
    for name, group in groups.items():
        plain = {i for i in group if _is_plain(candidates[i].answer, keys[i])}
        members = tuple(sorted(group, key=lambda i: (*_demerit(candidates[i]), i not in plain)))
        mass = [weights[i] for i in members]
        total = math.fsum(mass)
        weight = max(mass) if selector == "best" else total
        score, unanswered, unfinished, length = _demerit(candidates[members[0]])
        lead = (score, unanswered) if selector == "best" else (-round(weight, SCORE_DIGITS),)
        surest = fmean(sureness[i] for i in members) if sureness else 0.0
        worst = (unfinished, length) if selector == "best" else ()
        precedence = (*lead, -len(members), -round(total, SCORE_DIGITS), *worst, -surest)
        said = [candidates[i].answer or str(name) for i in sorted(members, key=lambda i: i not in plain)]
        answer = None if isinstance(name, int) else said[0]
        clusters.append(_Cluster(members, weight, precedence, answer, frozenset(said)))
    return sorted(clusters, key=lambda cluster: cluster.precedence)


def _sureness(candidates: Sequence[Candidate], voters: Sequence[int]) -> dict[int, float]:
    """Each voter's mean logprob; nothing where one has none."""
    told = {i: [token.logprob for token in candidates[i].sample.logprobs] for i in voters}
    return {i: fmean(logprobs) for i, logprobs in told.items()} if all(told.values()) else {}


def _confidence(candidates: Sequence[Candidate], clusters: Sequence[_Cluster], selector: Selector) -> float | None:
    if not clusters:
        return None
    winner = clusters[0]
    if selector == "best":
        return None if candidates[winner.members[0]].score is None else winner.weight
    total = math.fsum(cluster.weight for cluster in clusters)
    return winner.weight / total if total else None
