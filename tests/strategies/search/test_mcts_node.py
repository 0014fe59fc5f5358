"""The rules against hand calculation, and what a node counts."""

import math
import random

import pytest

from strategies.search.mcts_node import Arm, Node, Noise, puct, uct
from strategies.search.trajectory import Trajectory

LEAF = Trajectory((1,))


def family(*children: tuple[float, int, float]) -> Node:
    """A root with children of these (mean, visits, prior)."""
    root = Node(LEAF)
    root.children = [Node(LEAF, root, prior, estimate=mean) for mean, _, prior in children]
    for child, (mean, visits, _) in zip(root.children, children, strict=True):
        for _ in range(visits):
            child.back_up(mean, None)
    return root


def test_uct_is_the_mean_and_an_exploration_term() -> None:
    assert uct(Arm(0.5, 2, 1.0), 5, 1.4) == pytest.approx(0.5 + 1.4 * math.sqrt(math.log(5) / 2))
    assert uct(Arm(0.5, 2, 1.0), 5, 0.0) == 0.5
    assert uct(Arm(0.0, 0, 1.0), 5, 1.4) == math.inf


def test_puct_weighs_exploration_by_the_prior() -> None:
    weight = 1.25 + math.log((9 + 19653) / 19652)
    assert puct(Arm(0.5, 2, 0.3), 9, 1.25) == pytest.approx(0.5 + 0.3 * weight * 3 / 3)
    assert puct(Arm(0.5, 0, 0.3), 0, 1.25) == 0.5


def test_uct_chooses_as_by_hand() -> None:
    # ln 10 = 2.3026. c = 1: 0.6 + 0.5365 = 1.1365, 0.4 + 1.0730 = 1.4730. c = 0.1: 0.6537, 0.5073.
    root = family((0.6, 8, 0.5), (0.4, 2, 0.5))
    assert root.choose(uct, 1.0) is root.children[1]
    assert root.choose(uct, 0.1) is root.children[0]


def test_puct_chooses_as_by_hand() -> None:
    # N = 4, so sqrt(N) = 2 and the weight is 1.25 + 0.00025. 0.7 + 0.2 * 2.5005 / 4 = 0.825;
    # 0.2 + 0.5 * 2.5005 / 2 = 0.825125; 0.1 + 0.3 * 2.5005 = 0.85015.
    root = family((0.7, 3, 0.2), (0.2, 1, 0.5), (0.1, 0, 0.3))
    assert root.choose(puct, 1.25) is root.children[2]
    root.children[2].close()
    assert root.choose(puct, 1.25) is root.children[1]
    assert root.choose(puct, 1.0) is root.children[0]


def test_what_was_never_visited_goes_by_its_estimate_then_by_order() -> None:
    root = family((0.3, 0, 0.5), (0.8, 0, 0.5), (0.8, 0, 0.5))
    assert root.choose(uct, 1.0) is root.children[1]
    assert root.choose(puct, 1.0) is root.children[1]


def test_a_pending_rollout_is_a_visit_of_value_0() -> None:
    root = family((0.6, 1, 0.5), (0.5, 1, 0.5))
    first, second = root.children
    assert root.choose(puct, 1.25) is first
    first.pending += 1
    assert first.arm(None) == Arm(0.3, 2, 0.5)
    assert root.choose(puct, 1.25) is second
    first.leave()
    assert first.arm(None) == Arm(0.6, 1, 0.5)
    assert root.choose(puct, 1.25) is first


def test_a_visit_counts_all_the_way_up() -> None:
    root = family((0.0, 0, 1.0))
    child = root.children[0]
    grandchild = Node(LEAF, child)
    child.children = [grandchild]
    grandchild.back_up(0.5, "7")
    grandchild.back_up(1.0, None)
    assert child.arm(None) == Arm(0.75, 2, 1.0)
    assert (root.visits, child.visits, grandchild.visits) == (0, 2, 2)
    assert child.answers == {"7": 1}


def test_by_agreement_a_visit_is_worth_what_its_answer_is_worth_now() -> None:
    node = family((0.0, 0, 1.0)).children[0]
    for answer in ("7", "7", "8", None):
        node.back_up(0.0, answer)
    assert node.arm({"7": 0.5, "8": 0.25}).mean == pytest.approx((2 * 0.5 + 0.25) / 4)
    assert node.arm({"7": 0.1, "8": 0.9}).mean == pytest.approx((2 * 0.1 + 0.9) / 4)


def test_a_node_closes_with_its_last_open_child() -> None:
    root = family((0.1, 0, 0.5), (0.2, 0, 0.5))
    root.children[0].close()
    assert not root.closed
    assert root.choose(uct, 1.0) is root.children[1]
    root.children[1].close()
    assert root.closed
    assert root.choose(uct, 1.0) is None


def test_the_frontier_is_what_was_never_expanded_in_order() -> None:
    root = family((0.1, 0, 0.5), (0.2, 0, 0.5))
    first, second = root.children
    below = [Node(LEAF, first), Node(LEAF, first)]
    first.children = below
    assert list(root.frontier()) == [*below, second]


def test_noise_keeps_the_priors_a_distribution() -> None:
    priors = [0.7, 0.2, 0.1]
    mixed = Noise(0.25, 0.3, random.Random(1)).mixed(priors)
    assert math.fsum(mixed) == pytest.approx(1)
    assert all(m >= 0.75 * p for m, p in zip(mixed, priors, strict=True))
    assert mixed != pytest.approx(priors)
    assert mixed == Noise(0.25, 0.3, random.Random(1)).mixed(priors)
    # A high concentration is near to uniform.
    assert Noise(1.0, 1e4, random.Random(1)).mixed(priors) == pytest.approx([1 / 3] * 3, abs=0.05)
