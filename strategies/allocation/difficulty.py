"""How hard a question is for a model: features of a few samples of it, and the chance that one sample is right.

A fitted model of the features is a logistic regression whose output an isotonic one corrects. Where there is none, the
votes speak: of a few samples, the leading answer is right about as often as it is given, and those that give it are
right or wrong together, which makes the square of its share. Both are of pilots of one size, so what is drawn after a
pilot is taken for further pilots, and the mean of what they say counts.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from strategies.core.contracts import Candidate

FEATURES = (
    "share",
    "clusters",
    "entropy",
    "unparsed",
    "truncated",
    "length",
    "confidence",
    "score_mean",
    "score_max",
    "score_std",
    "score_min_step",
)
"""Their names, in the order in which `features` gives them."""
SCORE_FEATURES = frozenset(name for name in FEATURES if name.startswith("score_"))
UNSCORED = 0.5
"""What the features of scores are where nothing was scored."""
COVERAGE = 0.9
"""Of the interval around an estimate."""

CHECKED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the features look at of one sample that came to something."""

    key: str | None
    """Its answer, canonical; None where it gives none."""
    tokens: int
    truncated: bool
    """Whether it was cut before its end."""
    logprob: float | None = None
    """The mean logprob of its tokens; None where the engine gave none."""
    score: float | None = None
    """Its step scores as one; None where it was not scored."""
    min_step: float | None = None
    """The lowest of them."""


def attempts_of(candidates: Sequence[Candidate], keys: Sequence[str | None]) -> list[Attempt]:
    """What the features look at, without failed candidates; `keys` are the candidates' canonical answers."""
    attempts = []
    for candidate, key in zip(candidates, keys, strict=True):
        sample = candidate.sample
        if sample.finish_reason in (None, "error"):
            continue
        told = [token.logprob for token in sample.logprobs]
        attempts.append(
            Attempt(
                key,
                sample.completion_tokens,
                truncated=not sample.finished,
                logprob=math.fsum(told) / len(told) if told else None,
                score=candidate.score,
                min_step=min(candidate.step_scores) if candidate.step_scores else None,
            )
        )
    return attempts


def features(attempts: Sequence[Attempt]) -> dict[str, float]:
    """The features of a pilot by name.

    share: the leading answer's, of all attempts. clusters: distinct answers an attempt. entropy: of the votes, in
    nats. unparsed, truncated: shares of the attempts. length: ln of the mean tokens. confidence: the mean of the
    attempts' mean logprobs, 0 where unknown. score_mean, score_max, score_std: of the attempts' scores.
    score_min_step: the mean of their lowest step scores. Those of scores are 0.5 where there are none.

    Raises:
        ValueError: there is no attempt.
    """
    if not attempts:
        raise ValueError("there are no attempts to look at")
    n = len(attempts)
    votes = Counter(a.key for a in attempts if a.key is not None)
    shares = [count / votes.total() for count in votes.values()]
    logprobs = [a.logprob for a in attempts if a.logprob is not None]
    scores = [a.score for a in attempts if a.score is not None]
    lowest = [a.min_step for a in attempts if a.min_step is not None]
    mean = _mean(scores, UNSCORED)
    return {
        "share": max(votes.values(), default=0) / n,
        "clusters": len(votes) / n,
        "entropy": math.fsum(-share * math.log(share) for share in shares),
        "unparsed": (n - votes.total()) / n,
        "truncated": sum(a.truncated for a in attempts) / n,
        "length": math.log(max(1.0, sum(a.tokens for a in attempts) / n)),
        "confidence": _mean(logprobs, 0.0),
        "score_mean": mean,
        "score_max": max(scores, default=UNSCORED),
        "score_std": math.sqrt(_mean([(score - mean) ** 2 for score in scores], UNSCORED**2)),
        "score_min_step": _mean(lowest, UNSCORED),
    }


def _mean(values: Sequence[float], none: float) -> float:
    return math.fsum(values) / len(values) if values else none


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising function through points, straight between them and level beyond."""

    x: Annotated[tuple[float, ...], Field(min_length=1)]
    y: Annotated[tuple[Share, ...], Field(min_length=1)]

    def __call__(self, x: float) -> float:
        place = bisect_right(self.x, x)
        if place == 0:
            return self.y[0]
        if place == len(self.x):
            return self.y[-1]
        left, right = self.x[place - 1], self.x[place]
        return self.y[place - 1] + (self.y[place] - self.y[place - 1]) * (x - left) / (right - left)


@with_config(CHECKED)
@dataclass(frozen=True, slots=True)
class Difficulty:
    """P(one sample is right) from features: isotonic(sigmoid(Σ coefficient · (feature - mean) / scale + intercept))."""

    features: Annotated[tuple[str, ...], Field(min_length=1)]
    mean: tuple[float, ...]
    scale: tuple[Annotated[float, Field(gt=0)], ...]
    coefficients: tuple[float, ...]
    intercept: float
    isotonic: Isotonic
    """From the regression's output to the chance."""
    ece: Share
    """Expected calibration error, held out."""
    problems: Annotated[int, Field(ge=1)]
    """From which it was fitted."""

    @property
    def needs_scores(self) -> bool:
        return any(name in SCORE_FEATURES for name in self._used)

    @property
    def needs_logprobs(self) -> bool:
        return "confidence" in self._used

    def probability(self, values: Mapping[str, float]) -> float:
        """The chance that one sample is right, by the features' names."""
        parts = zip(self.features, self.mean, self.scale, self.coefficients, strict=True)
        logit = math.fsum(weight * (values[name] - mean) / scale for name, mean, scale, weight in parts)
        return self.isotonic(_sigmoid(logit + self.intercept))

    @property
    def _used(self) -> list[str]:
        return [name for name, weight in zip(self.features, self.coefficients, strict=True) if weight]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@dataclass(frozen=True, slots=True)
class Estimate:
    """The chance that one sample of a question is right."""

    p: float
    low: float
    high: float
    """The ends of the central 90 % of a Beta posterior as sure as that many graded samples would make it."""
    source: Literal["model", "votes", "scores"]
    """What it rests on: a fitted model, the votes, or, where nothing votes, the mean score."""


def estimate(attempts: Sequence[Attempt], model: Difficulty | None, size: int | None = None) -> Estimate:
    """How hard a question is. A model that needs scores is asked only of pilots that were scored.

    Args:
        attempts: one pilot after another.
        model: the fitted model, if there is one.
        size: of a pilot; the last one may be incomplete if it is the only one. None: all are one.

    Raises:
        ValueError: there is no attempt.
    """
    size = size or len(attempts) or 1
    whole = len(attempts) // size * size
    pilots = [attempts[i : i + size] for i in range(0, whole, size)] or [attempts]
    told = [pilot for pilot in pilots if model and (not model.needs_scores or _is_scored(pilot))]
    if model and told:
        return _around([model.probability(features(pilot)) for pilot in told], len(attempts), "model")
    if all(attempt.key is None for attempt in attempts) and _is_scored(attempts):
        return _around([features(attempts)["score_mean"]], len(attempts), "scores")
    return _around([features(pilot)["share"] ** 2 for pilot in pilots], len(attempts), "votes")


def _is_scored(attempts: Sequence[Attempt]) -> bool:
    return any(attempt.score is not None for attempt in attempts)


def _around(chances: Sequence[float], n: int, source: Literal["model", "votes", "scores"]) -> Estimate:
    p = math.fsum(chances) / len(chances)
    # Jeffreys' prior, and the estimate in place of n samples that somebody has graded.
    a, b = p * n + 0.5, (1 - p) * n + 0.5
    tail = (1 - COVERAGE) / 2
    return Estimate(p, min(p, beta_quantile(tail, a, b)), max(p, beta_quantile(1 - tail, a, b)), source)


def beta_quantile(q: float, a: float, b: float) -> float:
    """Below which a Beta(a, b) variable lies with the chance `q`, to 1e-7."""
    low, high = 0.0, 1.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if beta_below(middle, a, b) < q else (low, middle)
    return (low + high) / 2


def beta_below(x: float, a: float, b: float) -> float:
    """The chance that a Beta(a, b) variable is below x: the regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        # Its continued fraction converges fast only below the mean.
        return 1 - beta_below(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float, terms: int = 64) -> float:
    """1 + d1/(1 + d2/(1 + …)), from its end; the d are those of the incomplete beta function (DLMF 8.17.22)."""
    value = 1.0
    for k in range(terms, 0, -1):
        m = k // 2
        if k % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + d / value
    return value
