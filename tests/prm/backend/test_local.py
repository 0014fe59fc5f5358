"""The backend as a server uses it: what it computes, shares and refuses."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import NEVER_S
from running import score, with_prm
from tiny_prm import QUESTION

from prm import FAMILIES, Backend, FamilyPRM, Layout, PRMError, PRMInputError, StepScores
from prm.backend.local import TransformersBackend, load_prm

torch: Any = pytest.importorskip("torch")
pytest.importorskip("transformers")

Saved = Callable[[str], Path]
STEPS = ["There are 2 and 3 apples.", "2 + 3 = 5.", "So it is 5.", "The answer is 5."]


def options(family: str) -> dict[str, Any]:
    return {"separator": "\n\n"} if family == "trl" else {}


def scores(results: list[StepScores]) -> list[list[float]]:
    return [list(result.scores) for result in results]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_solution_that_grows_is_scored_as_at_once(saved: Saved, family: str) -> None:
    async def grow(prm: FamilyPRM) -> list[list[float]]:
        grown = list[list[float]]()
        for k in range(len(STEPS)):
            grown += scores(await prm.score(QUESTION, [STEPS[: k + 1]]))
        return grown

    (full,) = score(saved(family), QUESTION, [STEPS], cache_bytes=0, **options(family))
    for k, grown in enumerate(with_prm(saved(family), grow, **options(family))):
        assert grown == pytest.approx(full[: k + 1], abs=1e-4)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "outcome"])
def test_a_solution_that_grows_is_paid_once(saved: Saved, family: str) -> None:
    async def grow(prm: FamilyPRM) -> list[int]:
        told = list[int]()
        for k in range(len(STEPS)):
            await prm.score(QUESTION, [STEPS[: k + 1]], on_tokens=told.append)
        await prm.score(QUESTION, [STEPS], on_tokens=told.append)
        (layout,) = prm.family.layouts(QUESTION, STEPS)
        return [len(layout.token_ids), *told]

    whole, *told = with_prm(saved(family), grow, **options(family))
    assert len(told) == len(STEPS)
    assert sum(told) == whole


def test_a_beam_search_computes_a_fifth_or_less(saved: Saved) -> None:
    async def search(prm: FamilyPRM) -> int:
        beams = [[f"Beam {i} begins."] for i in range(16)]
        for k in range(20):
            await prm.score(QUESTION, beams)
            beams = [[*beams[i // 4], f"Step {k} of {i} says {i * k}."] for i in range(16)]
        assert isinstance(prm.backend, TransformersBackend)
        return prm.backend.computed

    incremental = with_prm(saved("math_shepherd"), search, max_len=4096)
    full = with_prm(saved("math_shepherd"), search, max_len=4096, cache_bytes=0)
    assert full >= 5 * incremental


def test_calls_that_run_at_once_share_batches(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    from prm.backend.incremental import IncrementalReader

    sizes, read = list[int](), IncrementalReader.read

    def noting(self: IncrementalReader, layouts: Any) -> Any:
        sizes.append(len(layouts))
        return read(self, layouts)

    async def at_once(prm: FamilyPRM) -> list[list[float]]:
        sizes.clear()
        calls = (prm.score(f"{i} apples", [[f"{i} are {i}"]]) for i in range(12))
        return [scores(results)[0] for results in await asyncio.gather(*calls)]

    async def apart(prm: FamilyPRM) -> list[list[float]]:
        return [scores(await prm.score(f"{i} apples", [[f"{i} are {i}"]]))[0] for i in range(12)]

    monkeypatch.setattr(IncrementalReader, "read", noting)
    together = with_prm(saved("skywork"), at_once, wait_s=0.1)
    assert max(sizes) == sum(sizes) == 12
    for got, alone in zip(together, with_prm(saved("skywork"), apart), strict=True):
        assert got == pytest.approx(alone, abs=1e-5)


def test_the_event_loop_stays_free_while_a_batch_is_read(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from prm.backend.incremental import IncrementalReader

    reading, free, read = threading.Event(), threading.Event(), IncrementalReader.read

    def slow(self: IncrementalReader, layouts: Any) -> Any:
        reading.set()
        assert free.wait(NEVER_S)
        return read(self, layouts)

    async def main(prm: FamilyPRM) -> None:
        monkeypatch.setattr(IncrementalReader, "read", slow)
        call = asyncio.create_task(prm.score(QUESTION, [STEPS]))
        await asyncio.to_thread(reading.wait, NEVER_S)
        free.set()
        assert len((await call)[0].scores) == len(STEPS)

    with_prm(saved("rlhflow"), main)


def test_what_is_too_long_is_refused_with_the_limit(saved: Saved) -> None:
    async def main(prm: FamilyPRM) -> None:
        assert prm.backend.max_len == 1024
        with pytest.raises(PRMInputError, match=r"solution 1 are \d+ tokens for .* more than its limit of 1024"):
            await prm.score(QUESTION, [STEPS, ["2 + 3 = 5. " * 300]])
        assert len((await prm.score(QUESTION, [STEPS]))[0].scores) == len(STEPS)

    with_prm(saved("skywork"), main)
    with pytest.raises(PRMInputError, match="limit of 20"):
        score(saved("skywork"), QUESTION, [STEPS], max_len=20)


def test_a_token_that_the_model_lacks_is_an_error(saved: Saved) -> None:
    async def main(prm: FamilyPRM) -> None:
        with pytest.raises(PRMError, match="has the token 99999"):
            await prm.backend.read([Layout((1, 99999), (1,))])

    with_prm(saved("skywork"), main)


def test_what_is_not_started_says_so(saved: Saved) -> None:
    backend = load_prm(str(saved("skywork"))).backend
    with pytest.raises(PRMError, match="not started"):
        asyncio.run(backend.read([Layout((1,), (0,))]))
    with pytest.raises(PRMError, match="not started"):
        _ = backend.max_len
    asyncio.run(backend.close())


def test_what_is_closed_says_so(saved: Saved) -> None:
    async def main(prm: FamilyPRM) -> Backend:
        return prm.backend

    backend = with_prm(saved("skywork"), main)
    with pytest.raises(PRMError, match="closed"):
        asyncio.run(backend.read([Layout((1,), (0,))]))


def test_a_family_can_be_said(saved: Saved) -> None:
    directory = str(saved("skywork"))
    assert load_prm(directory, "mine", family="math_shepherd").family.name == "math_shepherd"
    assert load_prm(directory, "mine").name == "mine"
    assert load_prm(directory).name == directory
    with pytest.raises(PRMError, match="is one of"):
        load_prm(directory, family="skywerk")


def test_a_head_of_another_family_is_refused_at_the_start(saved: Saved) -> None:
    prm = load_prm(str(saved("rlhflow")), family="skywork")
    with pytest.raises(PRMError, match="'LlamaForCausalLM' has no head"):
        asyncio.run(prm.backend.start())


def test_a_length_that_nobody_says_is_an_error(saved: Saved, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.BloomConfig(vocab_size=600, hidden_size=32, n_layer=1, n_head=1)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "prm.json").write_text(json.dumps({"family": "math_shepherd"}))
    transformers.AutoTokenizer.from_pretrained(saved("skywork")).save_pretrained(tmp_path)
    with pytest.raises(PRMError, match="set max_len"):
        asyncio.run(load_prm(str(tmp_path)).backend.start())


def test_a_missing_extra_is_named(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(saved("skywork"))
    backend = load_prm(directory).backend
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[transformers\]'"):
        asyncio.run(backend.start())


def test_no_model_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load_prm(str(tmp_path / "nowhere"))
