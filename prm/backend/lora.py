"""LoRA adapters as PEFT writes them, added into the weights of their model (2106.09685). Needs PyTorch."""

import json
import math
from pathlib import Path
from typing import Any

from prm.base import PRMError

_UNSUPPORTED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""Keys of `adapter_config.json` that change what an adapter means."""
_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def merge(backbone: Any, directory: str) -> None:
    """Adds an adapter's matrices to a model's weights.

    Args:
        backbone: the model without its head, as `PreTrainedModel.base_model` gives it.
        directory: of the adapter.

    Raises:
        PRMError: the adapter holds more than plain LoRA matrices, or belongs to another model.
    """
    from safetensors.torch import load_file  # noqa: PLC0415

    config = json.loads((Path(directory) / "adapter_config.json").read_text())
    if other := [key for key in _UNSUPPORTED if config.get(key)]:
        raise PRMError(f"the adapter {directory!r} has {other[0]}: only plain LoRA of the model's layers is supported")
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    tensors = load_file(Path(directory) / "adapter_model.safetensors")
    modules = dict(backbone.named_modules())
    if strange := [key for key in tensors if not key.endswith((_UP, _DOWN))]:
        raise PRMError(
            f"the adapter {directory!r} has {strange[0]}: only plain LoRA of the model's layers is supported"
        )
    for key in (key for key in tensors if key.endswith(_UP)):
        up = tensors[key]
        name = key.removeprefix(_PREFIX).removesuffix(_UP).removeprefix(f"{backbone.base_model_prefix}.")
        if name not in modules:
            raise PRMError(f"the adapter {directory!r} changes {name!r}, which its model does not have")
        weight = modules[name].weight
        delta = up.float() @ tensors[key.removesuffix(_UP) + _DOWN].float()
        weight.data += (scale * delta).to(weight.device, weight.dtype)
