"""What stands in for a fitted table: its order, and costs that are the pilot's own."""

from itertools import pairwise

import pytest

from strategies.allocation.policy_table import Cell, choose, complete_options
from strategies.allocation.prior_table import PilotCost, bin_of, cells

PILOT = PilotCost(samples=4, tokens=400, wall_s=2.0, steps=5.0, prm_tokens=80, prm_wall_s=0.5)


def of(place: int, strategy: str, scored: bool = True) -> list[Cell]:
    return [cell for cell in cells(PILOT, scored=scored) if (cell.bin, cell.strategy) == (place, strategy)]


def best(place: int, scored: bool) -> Cell:
    chosen = choose([cell for cell in cells(PILOT, scored=scored) if cell.bin == place])
    assert chosen is not None
    return chosen


@pytest.mark.parametrize(
    ("place", "scored", "strategy"),
    [
        (0, False, "self_consistency"),
        (1, False, "self_consistency"),
        (2, False, "self_consistency"),
        (0, True, "beam_search"),
        (1, True, "best_of_n"),
        (2, True, "best_of_n"),
    ],
)
def test_search_is_for_the_hardest_and_weighing_votes_for_the_rest(place: int, scored: bool, strategy: str) -> None:
    assert best(place, scored).strategy == strategy


def test_every_cell_is_an_arm_that_was_not_measured() -> None:
    for cell in cells(PILOT, scored=True):
        assert cell.strategy == "stop" or complete_options(cell)["n"]
        assert cell.problems == 0
        assert 0 < cell.low <= cell.accuracy <= cell.high <= 1
        assert cell.tokens.p50 <= cell.tokens.p95
        assert cell.wall_s.p50 <= cell.wall_s.p95


def test_what_costs_more_is_not_worse() -> None:
    for place in range(3):
        for strategy in ("self_consistency", "best_of_n", "beam_search"):
            for less, more in pairwise(of(place, strategy)):
                assert less.tokens.mean < more.tokens.mean
                assert less.low < more.low


def test_the_costs_are_the_pilot_s() -> None:
    (stop,) = of(1, "stop")
    assert (stop.tokens.p95, stop.prm_tokens.mean, stop.wall_s.p50) == (400, 80, 2.5)
    vote = of(1, "self_consistency")[0]
    assert (vote.options["n"], vote.tokens.mean, vote.prm_tokens.mean) == (8, 800, 160)
    assert 800 < vote.tokens.p95 < 1200
    assert vote.wall_s.p50 == 2.5 + 2.0 + 0.5
    search = of(0, "beam_search")[0]
    # Each of five steps is a scoring of its own, of longer and longer solutions.
    assert search.wall_s.p50 == 2.5 + 2.0 + 5 * 0.5
    assert search.prm_tokens.mean == 80 + 8 * 20 * 2.5


@pytest.mark.parametrize(("p", "place"), [(0.0, 0), (0.1, 1), (0.5, 2), (1.0, 2)])
def test_bins_are_hard_medium_and_easy(p: float, place: int) -> None:
    assert bin_of(p) == place
