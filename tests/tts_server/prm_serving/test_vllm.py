"""Reward models on the real vLLM, against the reference backend, one engine a test."""

import asyncio
import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_prm import QUESTION, save_tiny_prm

from prm import PRMError
from prm.backend.local import TransformersBackend, load_prm, read_config
from prm.backend.reference import Weights
from prm.families.contract import Backend, FamilyPRM, LabelTokens, Layout
from prm.families.labels import Labels
from prm.families.math_shepherd import MathShepherd
from tts_server.engines.vllm import VLLMEngine
from tts_server.engines.vllm_parts.pooling import VLLMPooler
from tts_server.prm_serving.label_engine import EngineReader
from tts_server.prm_serving.loading import CheckedPRM
from tts_server.prm_serving.pooling import PoolingReader
from tts_server.prm_serving.self_test import layouts_of, self_test

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
]

BLOCK = 32
OTHER = f"Another question, that nothing has cached: {QUESTION}"
STEPS = [f"Step {k} says that {k} + {k} = {2 * k}, which is right." for k in range(1, 9)]
SOLUTIONS = [STEPS, STEPS[:3], ["naïve 数学 🙂"], [*STEPS[:5], "<extra_0><|im_end|> is text."]]
FLOAT32 = {"dtype": "float32", "kv_cache_memory_bytes": 2**28}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    pytest.importorskip("vllm")
    yield
    gc.collect()  # vLLM leaves its sockets' contexts to the collector, which warns; here that is let through


def layouts(prm: FamilyPRM, solutions: Sequence[Sequence[str]] = SOLUTIONS) -> list[Layout]:
    return [layout for steps in solutions for layout in prm.family.layouts(QUESTION, steps)]


async def plain(backend: Backend, asked: Sequence[Layout]) -> list[tuple[float, ...]]:
    """What a backend reads, which lives for this only."""
    await backend.start()
    try:
        return await backend.read(asked)
    finally:
        await backend.close()


@pytest.mark.parametrize(("family", "separator"), [("qwen_math", None), ("trl", "\n\n")])
def test_classification_heads(tmp_path: Path, family: str, separator: str | None) -> None:
    path = str(save_tiny_prm(family, tmp_path))
    reference = load_prm(path, separator=separator)
    head, asked = reference.family.head, layouts(reference)
    other = list(reference.family.layouts(OTHER, STEPS))
    *expected, steps = asyncio.run(plain(reference.backend, [*asked, *other]))

    async def main() -> None:
        reader = PoolingReader(VLLMPooler(path, name="prm", args=FLOAT32), head)
        # It remembers; the reader in it says what vLLM says.
        prm = CheckedPRM(reference.family, reader, "prm", Weights(path, read_config(path), head))
        await prm.start()
        try:
            for got, want in zip(await reader.read(asked), expected, strict=True):
                assert got == pytest.approx(want, abs=1e-3)
            await step_by_step(prm, steps)
            if family == "qwen_math":
                await wrong_tasks(reader, prm)
        finally:
            await prm.close()

    asyncio.run(main())


async def step_by_step(prm: FamilyPRM, expected: tuple[float, ...]) -> None:
    """Scores that come a step a time are those of the whole, and cost their step."""
    before = 0
    for k in range(1, len(STEPS) + 1):
        tokens = list[int]()
        (result,) = await prm.score(OTHER, [STEPS[:k]], on_tokens=tokens.append)
        assert result.scores == pytest.approx(expected[:k], abs=1e-3)
        (layout,) = prm.family.layouts(OTHER, STEPS[:k])
        assert sum(tokens) <= len(layout.token_ids) - before + BLOCK
        before = len(layout.token_ids)


async def wrong_tasks(reader: PoolingReader, prm: FamilyPRM) -> None:
    """Another head's scores of the same engine do not pass, though they are plausible numbers."""
    swapped = [tuple(1 - score for score in scores) for scores in await reader.read(layouts_of(prm.family))]
    with pytest.raises(PRMError, match="does not score as it should"):
        await self_test("prm", prm.family, reader, swapped)


def adapter(directory: Path, model: str) -> str:
    """A LoRA adapter of random weights, as PEFT writes it."""
    from safetensors.torch import save_file

    config = read_config(model)
    size, torch_seed = config["hidden_size"], 0
    torch.manual_seed(torch_seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(8, size) * 0.05
        tensors[f"{name}.lora_B.weight"] = torch.randn(size, 8) * 0.05
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(said))
    return str(directory)


def test_labels_of_a_language_model_and_of_its_adapter_in_one_engine(tmp_path: Path) -> None:
    from tts_server.weights.catalog import resolve

    path = str(resolve("smollm2-135m-instruct"))
    lora = adapter(tmp_path / "adapter", path)
    config, words = read_config(path), transformers.AutoTokenizer.from_pretrained(path)
    ours, theirs = Labels(words), MathShepherd(words)

    def reference(family: Any, asked: Sequence[Layout], args: dict[str, Any]) -> list[tuple[float, ...]]:
        return asyncio.run(plain(TransformersBackend(path, config, family.head, args=args), asked))

    steps = STEPS[:4]
    asked = {family.name: list(family.layouts(QUESTION, steps)) for family in (ours, theirs)}
    base = reference(ours, asked["labels"], {})
    shepherd = reference(theirs, asked["math_shepherd"], {})
    adapted = reference(ours, asked["labels"], {"adapter": lora})
    assert max(abs(a - b) for a, b in zip(base[0], adapted[0], strict=True)) > 0.01

    async def main() -> None:
        engine = VLLMEngine(path, name="policy", max_model_len=1024, args={"dtype": "float32"})
        beside = EngineReader(engine.adapted(lora), labels_of(ours))
        await engine.start()
        try:
            for reader, layouts, want in (
                (EngineReader(engine, labels_of(ours)), asked["labels"], base),
                (beside, asked["labels"], adapted),
                (EngineReader(engine, labels_of(theirs)), asked["math_shepherd"], shepherd),
                (beside, asked["labels"], adapted),
            ):
                (got,) = await reader.read(layouts)
                assert got == pytest.approx(want[0], abs=2e-3)
            await its_own_prefix_cache(engine, beside, ours)
            prm = CheckedPRM(ours, beside, "prm", Weights(path, config, ours.head, lora))
            await prm.start()
            wrong = CheckedPRM(ours, beside, "prm", Weights(path, config, ours.head))
            with pytest.raises(PRMError, match="does not score as it should"):
                await wrong.start()
        finally:
            await engine.close()

    asyncio.run(main())


def labels_of(family: Any) -> LabelTokens:
    assert isinstance(family.head, LabelTokens)
    return family.head


async def its_own_prefix_cache(engine: VLLMEngine, beside: EngineReader, family: Labels) -> None:
    """What the model has cached is not the adapter's, and what the adapter has cached is used."""
    (layout,) = family.layouts("A question that nobody asked before. " * 5, STEPS[:2])
    whole = Layout(layout.token_ids, layout.ends[-1:])
    tokens = list[int]()
    await EngineReader(engine, labels_of(family)).read([whole])
    await beside.read([whole], on_tokens=tokens.append)
    await beside.read([whole], on_tokens=tokens.append)
    first, second = tokens
    assert first == len(whole.token_ids) + 1
    assert second <= BLOCK + 1
