"""What differs significantly: run against run, and votes over stored samples against runs. Draws nothing."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.reporting.data import Run, RunPair, right
from bench.rescoring.estimates import Row, Stored
from bench.stats.comparisons import differences, holm, sign_flips
from bench.stats.intervals import Difference

SHOWN = 6
"""Differences of a kind that the opening sentences name."""


class Pooled(NamedTuple):
    """A run with several independent samples a problem, and what votes over them reach."""

    run: Run
    stored: Stored
    rows: list[Row]

    @property
    def votes(self) -> list[Row]:
        """Those over all samples."""
        most = self.stored.sizes[-1]
        return [row for row in self.rows if row.question.k == most and row.question.measure != "pass"]


class VotePair(NamedTuple):
    """A vote against what another run answered, on the problems that both have."""

    vote: str
    run: Run
    problems: int
    difference: Difference
    """Of the vote's accuracy from the run's."""
    p: float
    adjusted: float
    """p, adjusted for the number of such pairs (Holm)."""

    @property
    def significant(self) -> bool:
        return self.adjusted < 0.05


def vote_pairs(pools: Sequence[Pooled], runs: Sequence[Run]) -> list[VotePair]:
    """Every vote over all samples of a run against every other run that shares a problem with it."""
    found = []
    for pool in pools:
        ids = [problem.record.id for problem in pool.stored.problems]
        for row in pool.votes:
            values = dict(zip(ids, row.values, strict=True))
            for run in runs:
                common = [name for name in ids if name in run.by_id]
                if run is not pool.run and common:
                    theirs = [float(right(run.by_id[name])) for name in common]
                    name = f"{row.question.label} of {pool.run.name}"
                    found.append((name, run, [values[i] for i in common], theirs))
    gaps = differences([ones for _, _, ones, _ in found], [others for *_, others in found])
    ps = [sign_flips(ones, others) for _, _, ones, others in found]
    return [
        VotePair(name, run, len(ones), gap, p, adjusted)
        for (name, run, ones, _), gap, p, adjusted in zip(found, gaps, ps, holm(ps), strict=True)
    ]


def conclusion(pairs: Sequence[RunPair], votes: Sequence[VotePair]) -> list[str]:
    """What is significant and what is not, the largest difference first."""
    named = [(pair.one.name, pair.other.name, pair.difference, pair.significant) for pair in pairs]
    named += [(pair.vote, pair.run.name, pair.difference, pair.significant) for pair in votes]
    if not named:
        return ["Nothing is compared: there is one run, or no problem in common."]
    sure: list[str] = []
    unsure: list[str] = []
    for one, other, gap, significant in sorted(named, key=lambda found: -abs(found[2].mean)):
        if gap.mean < 0:
            one, other, gap = other, one, Difference(0 - gap.mean, 0 - gap.high, 0 - gap.low)  # noqa: PLW2901
        (sure if significant else unsure).append(f"{one} over {other}, {gap}")
    first = f"Significant, in points: {_listed(sure)}." if sure else "No difference is significant."
    return [first, *([f"Not significant: {_listed(unsure)}."] if unsure and sure else [])]


def _listed(found: Sequence[str]) -> str:
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])
