"""A plain forward pass in another process gives what the reference backend gives."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_prm import QUESTION

from prm import PRMError
from prm.backend.local import load_prm, read_config
from prm.backend.reference import Weights, compute, reference_scores
from prm.families.contract import Classes, Family, Layout

torch: Any = pytest.importorskip("torch")
pytest.importorskip("transformers")

Saved = Callable[[str], Path]
STEPS = ["There are 2 and 3 apples.", "2 + 3 = 5.", "The answer is 5."]


def model(saved: Saved, name: str) -> tuple[Weights, Family, list[tuple[float, ...]], list[Layout]]:
    """The weights of a family and the reference backend's scores of some layouts."""

    async def read() -> list[tuple[float, ...]]:
        await prm.backend.start()
        try:
            return await prm.backend.read(layouts)
        finally:
            await prm.backend.close()

    path = str(saved(name))
    prm = load_prm(path, separator="\n\n" if name == "trl" else None)
    layouts = list(prm.family.layouts(QUESTION, STEPS))
    return Weights(path, read_config(path), prm.family.head), prm.family, asyncio.run(read()), layouts


@pytest.mark.parametrize("name", ["qwen_math", "math_shepherd", "skywork", "trl", "outcome", "labels"])
def test_it_agrees_with_the_reference_backend(saved: Saved, name: str) -> None:
    weights, family, expected, layouts = model(saved, name)
    request = {
        "path": weights.path,
        "config": weights.config,
        "adapter": None,
        "head": [type(family.head).__name__, {key: getattr(family.head, key) for key in family.head.__slots__}],
        "layouts": [{"token_ids": layout.token_ids, "ends": layout.ends} for layout in layouts],
    }
    answered = compute(json.loads(json.dumps(request)))
    for got, want in zip(answered, expected, strict=True):
        assert got == pytest.approx(want, abs=1e-4)


def test_it_runs_in_a_process_of_its_own(saved: Saved) -> None:
    weights, _, expected, layouts = model(saved, "qwen_math")
    scores = asyncio.run(reference_scores(weights, layouts))
    for got, want in zip(scores, expected, strict=True):
        assert got == pytest.approx(want, abs=1e-4)


def test_what_fails_there_is_said_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat >&2\necho 'a line' >&2\necho 'OSError: no weights' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    nowhere = Weights("nowhere", {}, Classes(right=1))
    with pytest.raises(PRMError, match=r"reference scores of 'nowhere' could not be computed: OSError: no weights$"):
        asyncio.run(reference_scores(nowhere, [Layout((1,), (0,))]))


def test_cancelling_ends_the_process(saved: Saved) -> None:
    psutil: Any = pytest.importorskip("psutil")
    weights = Weights(str(saved("qwen_math")), {}, Classes(right=1))
    # Other tests of this process leave children that live as long as it does.
    before = set(psutil.Process().children())

    async def main() -> None:
        asking = asyncio.create_task(reference_scores(weights, []))
        while set(psutil.Process().children()) <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        assert set(psutil.Process().children()) <= before

    asyncio.run(main())
