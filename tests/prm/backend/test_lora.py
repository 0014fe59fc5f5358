"""Adapters as PEFT writes them, against PEFT's own forward pass."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prm import PRMError
from prm.backend.lora import merge

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")
safetensors: Any = pytest.importorskip("safetensors.torch")

Saved = Callable[[str], Path]
IDS = [[5, 6, 7, 8, 9]]


def model(saved: Saved) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(saved("labels")).eval()


def hidden(body: Any) -> Any:
    with torch.no_grad():
        return body(torch.tensor(IDS)).last_hidden_state


@pytest.mark.parametrize("options", [{"lora_alpha": 16}, {"lora_alpha": 8, "use_rslora": True}])
def test_a_merged_adapter_computes_what_peft_does(saved: Saved, tmp_path: Path, options: dict[str, Any]) -> None:
    peft: Any = pytest.importorskip("peft")
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    with_peft = peft.get_peft_model(model(saved), config).eval()
    with_peft.save_pretrained(tmp_path)
    plain, merged = model(saved).base_model, model(saved).base_model
    merge(merged, str(tmp_path))
    expected = hidden(with_peft.base_model.model.base_model)
    assert torch.allclose(hidden(merged), expected, atol=1e-4)
    assert not torch.allclose(hidden(plain), expected, atol=1e-2)


NAME = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(directory: Path, name: str = NAME, extra: str | None = None, **config: Any) -> str:
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 64), f"{name}.lora_B.weight": torch.ones(64, 2)}
    tensors |= {extra: torch.ones(1)} if extra else {}
    safetensors.save_file(tensors, directory / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "modules_to_save": None, "rank_pattern": {}, **config}
    (directory / "adapter_config.json").write_text(json.dumps(said))
    return str(directory)


def test_each_weight_grows_by_the_scaled_product(saved: Saved, tmp_path: Path) -> None:
    before, after = model(saved).base_model, model(saved).base_model
    merge(after, adapter(tmp_path))
    grown = {key for key, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[key])}
    assert grown == {"layers.0.self_attn.q_proj.weight"}
    difference = after.layers[0].self_attn.q_proj.weight - before.layers[0].self_attn.q_proj.weight
    assert torch.allclose(difference, torch.full((64, 64), 4.0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"use_dora": True}, "has use_dora"),
        ({"modules_to_save": ["lm_head"]}, "has modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern"),
        ({"extra": "base_model.model.lm_head.weight"}, r"has base_model\.model\.lm_head\.weight"),
        ({"name": "base_model.model.model.layers.9.mlp"}, r"'layers\.9\.mlp', which its model does not have"),
    ],
)
def test_an_adapter_that_is_no_plain_sum_is_refused(
    saved: Saved, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(PRMError, match=said):
        merge(model(saved).base_model, adapter(tmp_path, **options))
