"""The model behind a reward model: its files, its family, and where it can run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prm import PRMError
from prm.backend.local import load_prm, read_config
from prm.backend.reference import Weights
from prm.families.contract import Config, Family, LabelTokens
from prm.families.detect import build
from tts_server.prm_serving.source import Source
from tts_server.weights.catalog import resolve

_SERVED = ("Qwen2ForProcessRewardModel", "ForTokenClassification", "ForSequenceClassification")
"""Ends of the architectures whose heads vLLM has."""
_ABOUT = "prm.json"
SHARE = 0.4
"""Of a GPU's memory: what vLLM gets for a reward model unless `prm_args` say another share."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model whose family is known."""

    name: str
    """As the configuration writes it."""
    path: str
    """Of its weights, or of those that its adapter belongs to."""
    config: Config
    family: Family
    adapter: str | None = None

    @property
    def weights(self) -> Weights:
        return Weights(self.path, self.config, self.family.head, self.adapter)

    @property
    def is_local(self) -> bool:
        """Whether its weights are in a directory of this machine."""
        return any(any(Path(self.path).glob(kind)) for kind in ("*.safetensors", "*.bin"))

    @property
    def runs_on_vllm(self) -> bool:
        kinds = self.config.get("architectures") or ()
        return isinstance(self.family.head, LabelTokens) or any(kind.endswith(_SERVED) for kind in kinds)


def find(source: Source, separator: str | None) -> Model:
    """The model that a source names.

    Raises:
        CatalogError: there is none.
        PRMError: it is of no family, or of another one.
        ImportError: the extra `transformers` is not installed.
        OSError: its files cannot be read.
    """
    if source.kind == "lora":
        return _adapted(source)
    directory = resolve(source.model)
    if Path(directory).exists() and not (Path(directory) / "config.json").is_file():
        raise PRMError(f"{directory} holds no model: it has no config.json")
    path = str(directory)
    family = None if source.kind == "auto" else source.kind
    found = load_prm(path, source.name, family=family, separator=separator).family
    return Model(source.model, path, read_config(path), found)


def _adapted(source: Source) -> Model:
    """An adapter and the model that its `prm.json` says it belongs to."""
    file = Path(source.model) / _ABOUT
    if not file.is_file():
        raise PRMError(f"{source.model} holds no trained adapter: it has no {_ABOUT}")
    about = json.loads(file.read_text())
    if not isinstance(about, dict) or not all(isinstance(about.get(key), str) for key in ("family", "base")):
        raise PRMError(f"{file} names no family and no base model")
    path = str(resolve(about["base"]))
    # What the base model says of itself as a reward model is not said of the adapter.
    plain = {key: value for key, value in read_config(path).items() if not key.startswith("prm_")}
    config = {**plain, **{f"prm_{key}": value for key, value in about.items()}}
    family = build(about["family"], config, tokenizer(path), source.model)
    if not isinstance(family.head, LabelTokens):
        raise PRMError(f"{source.model} is of the family {family.name}; an adapter's family reads label tokens")
    return Model(source.model, path, config, family, source.model)


def tokenizer(path: str) -> Any:
    """A model's tokenizer."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def vllm_args(given: Mapping[str, Any]) -> dict[str, Any]:
    """VLLM's arguments for a reward model: beside a policy, so it does not take the GPU for itself."""
    return {**({"gpu_memory_utilization": SHARE} if has_gpu() else {}), **given}


def has_gpu() -> bool:
    """Whether there is a GPU and a vLLM to use it."""
    if find_spec("vllm") is None or find_spec("torch") is None:
        return False
    import torch  # noqa: PLC0415

    return torch.cuda.is_available()
