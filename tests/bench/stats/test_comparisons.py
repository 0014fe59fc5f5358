"""Intervals cover what they should, and the tests between two runs are the textbook's."""

import numpy as np
import pytest

from bench.stats.comparisons import bootstrap, differences, holm, intervals, mcnemar, sign_flips
from bench.stats.intervals import wilson


def test_shares_have_wilsons_interval_and_means_a_bootstraps() -> None:
    share, mean = intervals([[1, 0, 1, 1], [0.5, 0.25, 1, 0]])
    assert share.method == "wilson"
    assert (share.low, share.high) == wilson(3, 4)
    assert mean.method == "bootstrap"
    assert 0 <= mean.low < 0.4375 < mean.high <= 1


def test_a_bootstrap_covers_the_truth_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(7)
    samples = random.beta(2, 3, size=(300, 60))
    covered = [low <= 0.4 <= high for low, high in bootstrap(samples.tolist())]
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=0.04)


def test_a_bootstrap_repeats_and_follows_its_seed() -> None:
    values = [[0.1 * (i % 11) for i in range(40)]]
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap([]) == []


@pytest.mark.parametrize("columns", [[[]], [[0.5], [0.5, 0.1]]])
def test_a_bootstrap_needs_problems(columns: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="one length"):
        bootstrap(columns)


def test_a_paired_difference_knows_that_the_problems_are_the_same() -> None:
    ones = [float(i % 2) for i in range(200)]
    others = [0.0 if i < 12 else one for i, one in enumerate(ones)]
    (difference,) = differences([ones], [others])
    assert difference.mean == pytest.approx(6 / 200)
    assert 0 < difference.low < difference.mean < difference.high < 0.06
    with pytest.raises(ValueError, match="longer"):
        differences([[1.0]], [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("only_one", "only_other", "p"), [(0, 0, 1), (5, 5, 1), (1, 0, 1), (6, 0, 2 / 64), (2, 9, 2 * 67 / 2048)]
)
def test_mcnemars_exact_test(only_one: int, only_other: int, p: float) -> None:
    ones = [True] * only_one + [False] * only_other + [True, False]
    others = [False] * only_one + [True] * only_other + [True, False]
    tested = mcnemar(ones, others)
    assert (tested.only_one, tested.only_other) == (only_one, only_other)
    assert tested.p == pytest.approx(p)
    assert mcnemar(others, ones).p == pytest.approx(p)


def test_holm_adjusts_for_several_tests() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_randomisation_test_is_mcnemars_where_all_is_right_or_wrong() -> None:
    ones, others = [1.0] * 9 + [0.0] * 6, [0.0] * 8 + [1.0] * 3 + [0.0] * 4
    exact = mcnemar([one == 1 for one in ones], [other == 1 for other in others]).p
    assert sign_flips(ones, others, seed=1) == pytest.approx(exact, abs=0.02)
    assert sign_flips(ones, ones) == 1


def test_the_randomisation_test_sees_differences_between_right_and_wrong() -> None:
    ones = [0.5 + 0.02 * i for i in range(20)]
    assert sign_flips(ones, [one - 0.1 for one in ones]) < 0.001
    assert sign_flips(ones, ones[::-1]) > 0.9
