"""Difficulty learnt from made-up pilots, of which the server reads the same chances."""

import numpy as np
import pytest

from bench.calibration.arms import Floats
from bench.calibration.difficulty_fit import calibration_error, fit, folds_of, reliability
from strategies.allocation.difficulty import FEATURES


def pilots(problems: int, draws: int = 6, seed: int = 0) -> tuple[Floats, Floats]:
    """Of the features only the share of votes tells something."""
    random = np.random.default_rng(seed)
    p = random.random((problems, 1)) * np.ones((1, draws))
    told = np.zeros((problems, draws, len(FEATURES)))
    told[..., 0] = random.binomial(4, p) / 4
    told[..., 1] = random.random((problems, draws))
    return told, random.binomial(12, p) / 12


def test_it_learns_what_tells_something_and_leaves_out_what_never_varies() -> None:
    told, ability = pilots(120)
    model = fit(FEATURES, told, ability)
    weights = dict(zip(FEATURES, model.coefficients, strict=True))
    assert weights["share"] > 5 * abs(weights["clusters"])
    assert all(weights[name] == 0 for name in FEATURES[2:])
    low, high = model(np.array([[0.0, 0.5, *[0.0] * 9], [1.0, 0.5, *[0.0] * 9]]))
    assert low < 0.3
    assert high > 0.7
    unseen, truth = pilots(200, seed=1)
    assert calibration_error(reliability(model(unseen), truth)) < 0.08


def test_the_server_reads_the_same_chances() -> None:
    told, ability = pilots(60)
    fitted = fit(FEATURES, told, ability)
    model = fitted.model(0.05, 60)
    assert (model.ece, model.problems) == (0.05, 60)
    assert not model.needs_scores
    for row in told.reshape(-1, len(FEATURES))[:50]:
        assert model.probability(dict(zip(FEATURES, row, strict=True))) == pytest.approx(float(fitted(row)))


@pytest.mark.parametrize(("problems", "folds"), [(10, 2), (11, 5), (5, 5)])
def test_every_problem_is_in_one_fold(problems: int, folds: int) -> None:
    parts = folds_of(problems, folds, seed=3)
    assert len(parts) == folds
    assert sorted(np.concatenate(parts)) == list(range(problems))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("folds", [1, 6])
def test_folds_that_there_cannot_be_are_refused(folds: int) -> None:
    with pytest.raises(ValueError, match="folds are 2 to 5"):
        folds_of(5, folds)


def test_the_calibration_error_is_the_mean_distance_over_pilots() -> None:
    predicted = np.array([[0.05, 0.05, 0.05], [0.95, 1.0, 0.97]])
    observed = np.array([[0.0, 0.0, 0.3], [1.0, 1.0, 1.0]])
    groups = reliability(predicted, observed)
    assert [group.pilots for group in groups] == [3, 3]
    assert calibration_error(groups) == pytest.approx((3 * 0.05 + 3 * (1 - 2.92 / 3)) / 6)
