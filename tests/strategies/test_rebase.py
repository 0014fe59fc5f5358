"""Reward-balanced widths."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some
from letters import Done

from strategies.rebase import widths


def test_widths_by_hand() -> None:
    # Weights e^(0.9/.2), e^(0.6/.2), e^(0.1/.2): 90.0, 20.1, 1.6; of 8: ceil(6.45) = 7, then ceil(0.92) = 1, then none.
    assert widths([0.9, 0.6, 0.1], 8, 0.2) == [7, 1, 0]


def test_equal_rewards_share_alike() -> None:
    assert widths([0.5] * 4, 8, 0.2) == [2, 2, 2, 2]


@pytest.mark.parametrize("temperature", [0.01, 0.2, 5.0])
def test_a_hotter_softmax_spreads_more(temperature: float) -> None:
    shares = widths([0.9, 0.5, 0.1], 30, temperature)
    expected = 30 * math.exp(0.9 / temperature) / sum(math.exp(r / temperature) for r in (0.9, 0.5, 0.1))
    assert shares[0] == min(30, math.ceil(expected - 1e-9))


@given(some.lists(some.floats(0, 1), min_size=1, max_size=50), some.integers(0, 200), some.floats(0.05, 10))
def test_widths_sum_to_the_width(rewards: list[float], width: int, temperature: float) -> None:
    shares = widths(sorted(rewards, reverse=True), width, temperature)
    assert sum(shares) == width
    assert min(shares) >= 0


def test_the_width_shrinks_with_each_finished_solution() -> None:
    done = Done("rebase", depth=2, n=6)
    assert len(done.final.candidates) == 6
    assert done.account.usage.samples == 6


def test_better_nodes_get_more_children() -> None:
    done = Done("rebase", depth=2, n=8)
    first = [path[0] for path in done.paths]
    assert first.count("a") > first.count("b") > first.count("d")


def test_the_last_steps_score_shares_the_width_whatever_the_aggregation_of_whole_solutions() -> None:
    product, last = (Done("rebase", depth=3, n=8, aggregation=how) for how in ("prod", "last"))
    assert sorted(product.paths) == sorted(last.paths)
    assert {c.score for c in product.final.candidates} != {c.score for c in last.final.candidates}
