"""Step scores to one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm import AGGREGATIONS, Aggregation, aggregate

scores = st.lists(st.floats(0, 1), min_size=1)


@pytest.mark.parametrize(("how", "score"), [("last", 0.8), ("min", 0.2), ("prod", 0.08), ("mean", 0.5)])
def test_each_aggregation_is_what_it_says(how: Aggregation, score: float) -> None:
    assert aggregate([0.5, 0.2, 0.8], how) == pytest.approx(score)


@given(scores, st.sampled_from(AGGREGATIONS))
def test_the_score_is_a_probability(values: list[float], how: Aggregation) -> None:
    assert 0 <= aggregate(values, how) <= 1


@given(st.floats(0, 1), st.sampled_from(AGGREGATIONS))
def test_one_step_is_its_own_score(value: float, how: Aggregation) -> None:
    assert aggregate([value], how) == value


@given(scores)
def test_the_product_is_the_strictest(values: list[float]) -> None:
    assert aggregate(values, "prod") <= aggregate(values, "min") <= aggregate(values, "last")


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_no_scores_are_an_error(how: Aggregation) -> None:
    with pytest.raises(ValueError, match="no step scores"):
        aggregate([], how)


def test_an_unknown_aggregation_is_an_error_that_lists_the_known() -> None:
    unknown: Any = "max"
    with pytest.raises(ValueError, match="last, min, prod, mean, got 'max'"):
        aggregate([0.5], unknown)
