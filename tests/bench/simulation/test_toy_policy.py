"""A miniature of the proof: closed forms name the best arms, and a small policy keeps its budgets."""

import pytest

from bench.calibration.arms import Arm
from bench.simulation.toy_policy import HIDDEN, PLAIN, QUALITY, Kind, prove, reached
from bench.simulation.toy_prm import ToyPRM
from bench.studies.compute_optimal import toy

VOTE, BEST = Arm("self_consistency", {"n": 32}, 32), Arm("best_of_n", {"n": 16}, 16, "best")


@pytest.mark.parametrize("kinds", [PLAIN, HIDDEN], ids=["plain", "hidden"])
def test_a_vote_is_best_where_samples_are_often_right_and_the_reward_model_where_they_are_not(
    kinds: dict[str, Kind],
) -> None:
    prm = ToyPRM(QUALITY)
    for name, better, worse in (("easy", VOTE, BEST), ("medium", VOTE, BEST), ("hard", BEST, VOTE)):
        assert reached(better, kinds[name], prm) > reached(worse, kinds[name], prm) + 0.05
    shares = [kind.world.p_solve for kind in kinds.values()]
    assert shares == pytest.approx([0.7, 0.35, 0.08], abs=0.01)


def test_the_proof_in_small() -> None:
    found = prove(PLAIN, 60, 60)
    assert [best.arm.strategy for best in found.best] == ["self_consistency", "self_consistency", "best_of_n"]
    assert all(best.of_chosen <= best.accuracy + 1e-9 for best in found.best)
    assert 0 <= found.ece < 0.3
    assert found.gap > 0.1
    assert found.regret.low <= found.regret.mean <= found.regret.high < found.gap
    assert all(row.spent <= row.tokens * 1.05 for row in found.shared)
    assert {row.rival for row in found.shared} == {
        "self_consistency", "self_consistency, stopping by itself", "best_of_n",
    }  # fmt: skip
    assert any("| hard |" in line for line in toy(found))
