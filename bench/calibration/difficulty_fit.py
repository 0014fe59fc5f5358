"""Learns from pilots how probable it is that one sample of a question is right; needs scikit-learn.

A logistic regression on standardised features, then an isotonic one that calibrates it. Whatever is judged, or
calibrated, was predicted by a model that had seen nothing of the same problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.calibration.arms import Floats
from strategies.allocation.difficulty import Difficulty, Isotonic

FOLDS = 5
BINS = 10
_STRENGTH = 1.0
"""Inverse of the L2 penalty: scikit-learn's own default, on standardised features."""


@dataclass(frozen=True, slots=True)
class DifficultyFit:
    """From features to P(one sample is right)."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    isotonic: Isotonic

    def raw(self, features: Floats) -> Floats:
        """Of the logistic regression alone; features are the last axis."""
        standard = (features - np.array(self.mean)) / np.array(self.scale)
        return np.asarray(1 / (1 + np.exp(-(standard @ np.array(self.coefficients) + self.intercept))))

    def __call__(self, features: Floats) -> Floats:
        """P(one sample is right)."""
        return np.asarray(np.interp(self.raw(features), self.isotonic.x, self.isotonic.y))

    def model(self, calibration_error: float, problems: int) -> Difficulty:
        """As a policy holds it."""
        return Difficulty(
            self.names,
            self.mean,
            self.scale,
            self.coefficients,
            self.intercept,
            self.isotonic,
            calibration_error,
            problems,
        )


class Reliability(NamedTuple):
    """Predictions that are alike."""

    predicted: float
    """Mean of them."""
    observed: float
    """Share of right samples."""
    pilots: int


def fit(names: Sequence[str], features: Floats, ability: Floats, *, folds: int = FOLDS, seed: int = 0) -> DifficultyFit:
    """A model of all problems.

    Args:
        names: of the features.
        features: problems x draws x features.
        ability: problems x draws, each the share of right ones among other samples of the problem.
        folds: for the calibration, which sees only predictions of unseen problems.
        seed: of the folds.

    Raises:
        RuntimeError: scikit-learn is not installed.
    """
    unseen = np.zeros(ability.shape)
    for fold in folds_of(len(ability), folds, seed):
        rest = np.setdiff1d(np.arange(len(ability)), fold)
        unseen[fold] = _logistic(names, features[rest], ability[rest]).raw(features[fold])
    model = _logistic(names, features, ability)
    line = _sklearn("isotonic").IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    line.fit(unseen.ravel(), ability.ravel())
    points = Isotonic(tuple(map(float, line.X_thresholds_)), tuple(map(float, line.y_thresholds_)))
    return DifficultyFit(model.names, model.mean, model.scale, model.coefficients, model.intercept, points)


def _logistic(names: Sequence[str], features: Floats, ability: Floats) -> DifficultyFit:
    """Not calibrated. A share of right samples counts as so much of a right one and the rest of a wrong one."""
    rows, shares = features.reshape(-1, features.shape[-1]), ability.ravel()
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    # What never varies tells nothing, and must not be divided by rounding errors.
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    standard = (rows - mean) / scale
    model = _sklearn("linear_model").LogisticRegression(C=_STRENGTH, max_iter=1000)
    labels = np.repeat([1, 0], len(rows))
    model.fit(np.concatenate([standard, standard]), labels, sample_weight=np.concatenate([shares, 1 - shares]))
    return DifficultyFit(
        tuple(names),
        tuple(map(float, mean)),
        tuple(map(float, scale)),
        tuple(map(float, model.coef_[0])),
        float(model.intercept_[0]),
        Isotonic((0.0, 1.0), (0.0, 1.0)),
    )


def folds_of(problems: int, folds: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """The problems in so many parts of about one size, at random.

    Raises:
        ValueError: there are fewer problems than folds, or fewer than two folds.
    """
    if not 2 <= folds <= problems:
        raise ValueError(f"folds are 2 to {problems}, the number of problems; got {folds}")
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(problems), folds)]


def reliability(predicted: Floats, observed: Floats, bins: int = BINS) -> list[Reliability]:
    """By predictions of equally wide ranges; those that are empty are left out."""
    place = np.minimum((predicted.ravel() * bins).astype(int), bins - 1)
    return [
        Reliability(float(predicted.ravel()[here].mean()), float(observed.ravel()[here].mean()), int(here.sum()))
        for here in (place == i for i in range(bins))
        if here.any()
    ]


def calibration_error(groups: Sequence[Reliability]) -> float:
    """ECE: how far predictions are from what is observed, on the mean over pilots."""
    pilots = sum(group.pilots for group in groups)
    return sum(abs(group.predicted - group.observed) * group.pilots for group in groups) / pilots


def _sklearn(module: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        raise RuntimeError("fitting needs scikit-learn; in a checkout: pip install '.[bench]'") from error
