"""Loads reward models of every head with `transformers`, without code of a checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Qwen2Config,
    Qwen2Model,
    Qwen2PreTrainedModel,
)

from prm.backend.lora import merge
from prm.base import PRMError
from prm.families.contract import Classes, Head, LabelTokens, Sigmoid

_RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Keys of a config by which a model rescales the logits that its head's weights give."""


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Qwen2.5-Math-PRM: two layers that end in two classes, on every token."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2))
        self.post_init()  # type: ignore[no-untyped-call]


class Qwen2ForPrmModel(Qwen2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Skywork-o1-Open-PRM: one value on every token."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        self.model = Qwen2Model(config)
        self.v_head = nn.ModuleDict({"summary": nn.Linear(config.hidden_size, 1)})
        self.post_init()  # type: ignore[no-untyped-call]


_OURS = {kind.__name__: kind for kind in (Qwen2ForProcessRewardModel, Qwen2ForPrmModel)}


class RewardModel(NamedTuple):
    """A model without its head, and its head."""

    backbone: Any
    """A `PreTrainedModel` that gives hidden states."""
    score: Callable[[torch.Tensor], torch.Tensor]
    """Hidden states [n, hidden size] to scores [n]."""


def load(path: str, config: Mapping[str, Any], head: Head, adapter: str | None = None, **args: Any) -> RewardModel:
    """Loads a model for a head.

    Args:
        path: a directory or a hub id.
        config: its `config.json`.
        head: how its outputs become scores.
        adapter: the directory of a LoRA adapter of the model.
        args: of `from_pretrained`.

    Raises:
        PRMError: the checkpoint lacks weights that the head needs.
    """
    model, info = _kind(config, head).from_pretrained(path, output_loading_info=True, **args)
    if missing := sorted(info["missing_keys"]):
        raise PRMError(f"the reward model {path!r} lacks the weights {', '.join(missing[:3])}: it is of another family")
    if len(set((getattr(model, "hf_device_map", None) or {"": 0}).values())) > 1:
        raise PRMError(f"the reward model {path!r} was put on several devices; this backend keeps it on one")
    model.eval().requires_grad_(False)
    if adapter:
        merge(model.base_model, adapter)
    return RewardModel(model.base_model, _scores(model, head))


def _kind(config: Mapping[str, Any], head: Head) -> Any:
    if isinstance(head, LabelTokens):
        return AutoModelForCausalLM
    kind = (config.get("architectures") or [""])[0]
    if kind.endswith("ForTokenClassification"):
        return AutoModelForTokenClassification
    if kind.endswith("ForSequenceClassification"):
        return AutoModelForSequenceClassification
    if kind not in _OURS:
        raise PRMError(f"a reward model of the architecture {kind!r} has no head that can be read")
    return _OURS[kind]


def _scores(model: Any, head: Head) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the head: values in float32, and probabilities in float64, where few are rounded to 0 or 1.

    Float64 is the CPU's, since not every device has it.
    """
    match head:
        case LabelTokens(right, wrong):
            logits = _label_logits(model, right, wrong)
            return lambda hidden: logits(hidden).cpu().double().softmax(-1)[:, 0]
        case Classes(right):
            layers = _layers(model)
            return lambda hidden: layers(hidden.float()).cpu().double().softmax(-1)[:, right]
        case Sigmoid():
            layers = _layers(model)
            return lambda hidden: layers(hidden.float()).squeeze(-1).cpu().double().sigmoid()


def _label_logits(model: Any, right: int, wrong: int) -> Callable[[torch.Tensor], torch.Tensor]:
    if scaled := [key for key in _RESCALED if getattr(model.config, key, None) not in (None, 1, 1.0)]:
        raise PRMError(f"a reward model that reads labels cannot have {scaled[0]}, which its config sets")
    rows = model.get_output_embeddings()
    weight = rows.weight[[right, wrong]].float()
    bias = None if rows.bias is None else rows.bias[[right, wrong]].float()
    return lambda hidden: nn.functional.linear(hidden.float(), weight, bias)


def _layers(model: Any) -> Any:
    layers = model.v_head["summary"] if hasattr(model, "v_head") else getattr(model, "score", None)
    if layers is None:
        raise PRMError(f"a reward model of the class {type(model).__name__} has no head that can be read")
    return layers.float()
