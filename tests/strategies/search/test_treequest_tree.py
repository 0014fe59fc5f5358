"""TreeQuest's tree: wide or deep as the scores have it, and no trace in numpy's global generator."""

import asyncio
import sys

import pytest

from strategies.core.contracts import Candidate, Chunk, Refused, Sample
from strategies.search.treequest_tree import Posterior, Tree, drawing_from, treequest

pytest.importorskip("treequest")
np = pytest.importorskip("numpy")

SOLUTION = Candidate(Sample([Chunk(0, "It is 1.", finish_reason="eos")]))


def grown(fresh: float, revised: float, n: int = 40, seed: int | None = 1, posterior: Posterior = "gaussian") -> Tree:
    tree = Tree(asyncio.run(treequest()), posterior, seed)
    for _ in range(n):
        (trial,) = tree.ask(1)
        tree.tell(trial, SOLUTION, fresh if trial.parent_state is None else revised)
    return tree


def wide(tree: Tree, n: int = 40) -> int:
    """How many of the next solutions would be fresh ones."""
    return sum(trial.parent_state is None for trial in tree.ask(n))


@pytest.mark.parametrize("posterior", ["gaussian", "beta"])
def test_it_goes_where_scores_are_better(posterior: Posterior) -> None:
    assert wide(grown(0.9, 0.1, posterior=posterior)) > 25
    assert wide(grown(0.1, 0.9, posterior=posterior)) < 15


def test_the_first_batch_is_fresh() -> None:
    trials = Tree(asyncio.run(treequest()), "gaussian", 1).ask(5)
    assert [(trial.node_to_expand, trial.parent_state) for trial in trials] == [(-1, None)] * 5
    assert len({trial.trial_id for trial in trials}) == 5


def test_the_same_seed_asks_the_same_and_none_asks_differently() -> None:
    def asked(seed: int | None) -> list[int]:
        return [trial.node_to_expand for trial in grown(0.5, 0.5, seed=seed).ask(40)]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)
    assert asked(None) != asked(None)


def test_others_draw_as_if_it_were_not_there() -> None:
    np.random.seed(3)
    expected = np.random.random(4).tolist()
    np.random.seed(3)
    drawn = []
    for seed in range(4):
        grown(0.5, 0.5, n=5, seed=seed)
        drawn.append(float(np.random.random()))
    assert drawn == expected


def test_the_global_generator_comes_back_when_drawing_fails() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match="low >= high"), drawing_from(np.random.RandomState(1)):
        np.random.randint(3, 2, np.random.randint(10, size=1000).max())
    assert np.random.get_state()[1].tolist() == before


def test_without_the_library_the_request_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "treequest", None)
    with pytest.raises(Refused, match=r"pip install '\.\[search\]'") as caught:
        asyncio.run(treequest())
    assert caught.value.param == "tts.strategy"
