"""From what the configuration says to a reward model that can be started, or one sentence."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reward_server import RewardServer
from tiny_prm import QUESTION

from prm import FakePRM, PRMError, ProcessRewardModel
from prm.backend.local import load_prm
from prm.generative import GenerativePRM
from tts_server.config import ConfigError, EngineName, Settings
from tts_server.engines.base import ServedEngine
from tts_server.engines.fake import FakeEngine
from tts_server.engines.vllm import VLLMEngine
from tts_server.errors import EngineUnavailable, UpstreamError
from tts_server.planning.service import Lifetime, Service
from tts_server.prm_serving import models
from tts_server.prm_serving.loading import CheckedPRM, ServedPRM, load
from tts_server.prm_serving.source import parse

pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors: Any = pytest.importorskip("safetensors.torch")

Saved = Callable[[str], Path]
STEPS = ["There are 2 and 3 apples.", "2 + 3 = 5."]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)


def made(
    prm: str, engine: ServedEngine | None = None, policy: EngineName = "auto", **settings: Any
) -> ProcessRewardModel:
    (source,) = parse(prm)
    return load(source, Settings(prm=prm, engine=policy, **settings), engine or FakeEngine())


def scores(prm: ProcessRewardModel) -> tuple[float, ...]:
    """Of a reward model that lives for this only."""
    assert isinstance(prm, Lifetime)
    living: Lifetime = prm

    async def main() -> tuple[float, ...]:
        await living.start()
        try:
            return (await prm.score(QUESTION, [STEPS]))[0].scores
        finally:
            await living.close()

    return asyncio.run(main())


@pytest.mark.parametrize("family", ["qwen_math", "math_shepherd", "skywork", "outcome", "labels"])
def test_a_model_tells_its_family(saved: Saved, family: str) -> None:
    prm = made(str(saved(family)), prm_backend="transformers")
    assert isinstance(prm, ServedPRM)
    assert (prm.name, prm.family.name) == (saved(family).name, family)
    assert len(scores(prm)) == len(STEPS)


def test_a_family_and_its_separator_can_be_said(saved: Saved) -> None:
    prm = made(f"trl:{saved('trl')}", prm_backend="transformers", prm_separator="\n")
    assert len(scores(prm)) == len(STEPS)


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("trl", {}, "prm: the reward model .* does not say which: name it"),
        ("skywork", {"prm_backend": "vllm"}, r"prm_backend: vLLM does not run the family skywork \(Qwen2ForPrmModel\)"),
        ("qwen_math", {"prm_upstream": "ftp://x"}, "prm_upstream: The upstream's URL must be http"),
        ("qwen_math", {"prm_separator": "\n"}, "prm: the family qwen_math has a step separator of its own"),
    ],
)
def test_what_cannot_run_is_one_sentence(saved: Saved, family: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        made(str(saved(family)), **settings)
    assert "\n" not in str(refused.value)


def test_a_model_without_the_familys_tokens_is_refused(saved: Saved) -> None:
    with pytest.raises(ConfigError, match="prm: the tokenizer has no token '<extra_0>'"):
        made(f"qwen_math:{saved('trl')}")


def test_a_directory_that_holds_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prm: "):
        made(str(tmp_path))


def test_where_it_runs(saved: Saved) -> None:
    alone = made(str(saved("qwen_math")))
    assert type(alone) is ServedPRM
    assert isinstance(made(str(saved("qwen_math")), prm_backend="vllm"), CheckedPRM)
    assert isinstance(
        made(str(saved("qwen_math")), prm_backend="http", prm_upstream="http://127.0.0.1:9/v1"), CheckedPRM
    )
    assert isinstance(made(str(saved("qwen_math")), prm_upstream="http://127.0.0.1:9"), CheckedPRM)
    assert isinstance(made(str(saved("rlhflow")), prm_backend="vllm"), CheckedPRM)


def test_a_server_that_does_not_score_as_the_weights_do_stops_the_start(saved: Saved) -> None:
    async def main() -> None:
        async with RewardServer("all").serve() as url:
            prm = made(str(saved("qwen_math")), prm_upstream=url)
            assert isinstance(prm, Lifetime)
            with pytest.raises(PRMError, match=r"'qwen_math' does not score as it should: .*in a plain forward pass"):
                await prm.start()
            await prm.close()

    asyncio.run(main())


def test_without_a_reference_the_server_is_believed(saved: Saved) -> None:
    async def main() -> None:
        async with RewardServer("all").serve() as url:
            prm = made(str(saved("qwen_math")), prm_upstream=url, prm_reference=False)
            assert isinstance(prm, CheckedPRM)
            await prm.start()
            assert len((await prm.score(QUESTION, [STEPS]))[0].scores) == len(STEPS)
            await prm.close()

    asyncio.run(main())


def test_a_server_that_is_gone_stops_the_start(saved: Saved) -> None:
    prm = made(str(saved("qwen_math")), prm_upstream="http://127.0.0.1:9", prm_reference=False)
    with pytest.raises(UpstreamError, match="cannot be reached"):
        scores(prm)


def adapter(directory: Path, base: Path, /, **about: Any) -> Path:
    """An adapter that `tts-bench prm-train` could have written."""
    import torch

    directory.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(8, 64) / 8, f"{name}.lora_B.weight": torch.ones(64, 8) / 8}
    safetensors.save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    said = {"family": "labels", "base": str(base), "right": " right", "wrong": " wrong", **about}
    (directory / "prm.json").write_text(json.dumps({key: value for key, value in said.items() if value}))
    return directory


def test_an_adapter_runs_on_transformers_beside_any_engine(saved: Saved, tmp_path: Path) -> None:
    made_of = adapter(tmp_path / "mine", saved("labels"), aggregation="min")
    prm = made(f"lora:{made_of}")
    assert isinstance(prm, ServedPRM)
    assert (prm.name, prm.aggregation) == ("mine", "min")
    assert scores(prm) != pytest.approx(scores(load_served(saved("labels"))), abs=1e-3)


def load_served(path: Path) -> ProcessRewardModel:
    prm = load_prm(str(path))
    return ServedPRM(prm.family, prm.backend, "plain")


def test_an_adapter_of_the_policy_runs_on_its_engine(saved: Saved, tmp_path: Path) -> None:
    engine = VLLMEngine(str(saved("labels")), name="policy")
    prm = made(f"lora:{adapter(tmp_path / 'mine', saved('labels'))}", engine)
    assert isinstance(prm, CheckedPRM)
    second = made(f"lora:{adapter(tmp_path / 'other', saved('labels'))}", engine)
    assert isinstance(second, CheckedPRM)
    assert engine._args["max_loras"] == 2
    assert engine._args["max_lora_rank"] == 8


@pytest.mark.parametrize(
    ("about", "settings", "said"),
    [
        ({"base": None}, {}, "names no family and no base model"),
        ({"right": None}, {}, "'right' of .* is not"),
        ({"family": "qwen_math"}, {}, "the tokenizer has no token '<extra_0>'"),
        ({"base": "/nowhere"}, {}, "Cannot find the model '/nowhere'"),
        ({}, {"prm_backend": "vllm"}, "belongs to .*, which is not what a vLLM engine of this server serves"),
    ],
)
def test_an_adapter_that_does_not_do_is_one_sentence(
    saved: Saved, tmp_path: Path, about: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        made(f"lora:{adapter(tmp_path / 'mine', saved('labels'), **about)}", **settings)


def test_a_directory_without_an_adapter_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no trained adapter: it has no prm\.json"):
        made(f"lora:{tmp_path}")


def test_an_adapter_whose_weights_are_not_there_is_said(saved: Saved, tmp_path: Path) -> None:
    directory = adapter(tmp_path / "mine", saved("labels"))
    (directory / "adapter_config.json").unlink()
    with pytest.raises(EngineUnavailable, match="holds no LoRA adapter as PEFT writes it"):
        made(f"lora:{directory}", VLLMEngine(str(saved("labels")), name="policy"))


def test_the_fake_engine_writes_no_critiques() -> None:
    with pytest.raises(ConfigError, match="the engine 'fake' writes no critiques"):
        made("generative", engine=FakeEngine(), engine_args={}) if False else load(
            parse("generative")[0], Settings(engine="fake", prm="generative"), FakeEngine()
        )


def test_a_generative_model_without_the_labels_is_refused(saved: Saved) -> None:
    with pytest.raises(ConfigError, match="no token for ' Yes'"):
        made(f"generative:{saved('labels')}")


def test_only_reward_models_with_a_lifetime_are_started() -> None:
    class Living(GenerativePRM):
        def __init__(self) -> None:
            self.name = "living"

        async def start(self) -> None: ...

        async def close(self) -> None: ...

    living = Living()
    service = Service(FakeEngine(), {"fake": FakePRM(), "living": living}, Settings(), 0)
    assert service.owned == [living]
