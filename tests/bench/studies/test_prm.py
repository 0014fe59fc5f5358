"""The reward model's bench, in miniature: what it counts is what is computed."""

import asyncio
from pathlib import Path

import pytest
from running import with_prm
from tiny_prm import save_tiny_prm

from bench.studies.prm import FAMILY, Search, Shape, measure, saved
from prm import FamilyPRM
from prm.backend.local import TransformersBackend, load_prm

pytest.importorskip("torch")
pytest.importorskip("transformers")

SHAPE = Shape(beams=8, rounds=6, words=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch

    torch.set_num_threads(1)
    return str(save_tiny_prm(FAMILY, tmp_path_factory.mktemp("prm")))


def test_the_tokens_of_full_scoring_are_those_that_it_computes(model: str) -> None:
    async def in_full(full: FamilyPRM) -> tuple[int, int]:
        kept = load_prm(model, family=FAMILY)
        await kept.backend.start()
        cost = await saved(kept, full, SHAPE, seed=3, checked=2)
        checked = full.backend
        assert isinstance(checked, TransformersBackend)
        before = checked.computed
        again = await saved(full, full, SHAPE, seed=3, checked=0)
        assert again.full == cost.full
        assert cost.apart < 1e-3
        assert cost.full >= 2 * cost.incremental
        await kept.backend.close()
        return cost.full, checked.computed - before

    counted, computed = with_prm(Path(model), in_full, family=FAMILY, cache_bytes=0)
    assert counted == computed


def test_a_search_repeats_by_its_seed_and_keeps_the_better_quarter() -> None:
    one, same, other = (Search(SHAPE, 5, seed) for seed in (1, 1, 2))
    assert one.grow() == same.grow() != other.grow()
    first = one.beams
    one.keep([0.1, 0.9, 0.2, 0.8, 0.3, 0.3, 0.3, 0.3])
    assert {tuple(beam) for beam in one.beams} == {tuple(first[1]), tuple(first[3])}
    assert len(one.beams) == 8


def test_it_measures_every_level(model: str) -> None:
    short = Shape(beams=2, rounds=2, words=5)
    lines = asyncio.run(measure(model, (SHAPE, short), (1, 3), rounds=1, seed=0))
    assert sum("times fewer" in line for line in lines) == 1
    assert [line.split(" | ")[0] for line in lines[-3:]] == ["| 1, one by one", "| 1", "| 3"]
    assert all(float(line.split(" | ")[1]) > 0 for line in lines[-3:])
