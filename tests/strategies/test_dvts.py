"""Independent subtrees."""

from letters import Done


def test_each_subtree_keeps_its_best_step_and_all_last_candidates_vote() -> None:
    done = Done("dvts", n=4, beam_width=2)
    assert sorted(done.paths) == ["aaa", "aaa", "aab", "aab"]


def test_the_subtrees_share_the_samples_out() -> None:
    done = Done("dvts", n=5, beam_width=2, depth=1)
    assert done.account.usage.samples == 5
    assert sorted(done.paths) == ["a", "a", "b", "b", "c"]


def test_fewer_samples_than_the_width_are_one_subtree() -> None:
    done = Done("dvts", n=3, beam_width=4, depth=2)
    assert sorted(done.paths) == ["aa", "ab", "ac"]


def test_every_round_of_every_subtree_is_told() -> None:
    done = Done("dvts", n=4, beam_width=2)
    assert len(done.progress) == 6
