"""Pictures of searches: what hangs below what, and that the order of arrival leaves no mark."""

from dataclasses import replace
from typing import Any

import pytest

from bench.simulation.search_figure import WORLD, Node, Trace, trace
from bench.simulation.toy_world import STEP
from strategies import get


def below(node: Node, searched: Trace) -> list[Node]:
    return [child for child in searched.nodes if node in child.parents]


def test_a_step_hangs_below_the_one_step_before_it() -> None:
    searched = trace(get("beam_search"), {"n": 4, "beam_width": 2})
    assert [sum(node.depth == depth for node in searched.nodes) for depth in range(1, 5)] == [4, 4, 4, 0]
    assert {len(node.parents) for node in searched.nodes} == {0, 1}
    grown = [len(below(node, searched)) for node in searched.nodes if node.depth < WORLD.depth]
    assert sorted(grown) == [0, 0, 0, 0, 2, 2, 2, 2]


def test_a_merge_hangs_below_all_that_it_merges() -> None:
    searched = trace(get("mixture_of_agents"), {"layers": 3, "proposers": 3})
    assert sorted((node.depth, len(node.parents)) for node in searched.nodes) == [(1, 0)] * 3 + [(2, 3)] * 3 + [(3, 3)]


def test_a_revision_hangs_below_its_review_alone() -> None:
    searched = trace(get("self_refine"), {"revisions": 1, "accept": "last"})
    first, review, revision = searched.nodes
    assert (first.parents, review.parents, revision.parents) == ((), (first,), (review,))


def test_a_thought_goes_on_from_the_one_in_its_prompt() -> None:
    searched = trace(get("tree_of_thoughts"), {"n_generate": 2, "breadth": 2, "max_steps": 2})
    steps = [[int(number) for number, _ in STEP.findall(node.text)] for node in searched.nodes]
    assert steps == [[node.depth] for node in searched.nodes]


def test_a_step_quoted_from_an_earlier_answer_is_not_gone_on_from() -> None:
    pytest.importorskip("treequest")
    searched = trace(get("ab_mcts"), {"n": 8, "batch": 2})
    assert {STEP.findall(node.text)[0][0] for node in searched.nodes} == {"1"}
    assert any(node.parents for node in searched.nodes)


@pytest.mark.parametrize(
    ("name", "options"), [("rebase", {"n": 4}), ("mcts", {"n": 4, "branch": 2}), ("graph_of_thoughts", {})]
)
def test_a_picture_knows_nothing_of_the_order_of_arrival(name: str, options: dict[str, Any]) -> None:
    searched = trace(get(name), options)
    assert replace(searched, nodes=searched.nodes[::-1]).mermaid() == searched.mermaid()


def test_the_returned_answer_is_marked_from_its_first_step() -> None:
    searched = trace(get("beam_search"), {"n": 4, "beam_width": 2})
    lines = [line.strip() for line in searched.mermaid().splitlines()]
    marked = [line.split()[1] for line in lines if line.endswith(" returned")]
    assert len(marked) == WORLD.depth
    assert all(f"{above} --> {node}" in lines for above, node in zip(["n0", *marked], marked, strict=False))
