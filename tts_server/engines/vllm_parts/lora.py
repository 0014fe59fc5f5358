"""LoRA adapters of the model that a vLLM engine serves: weights beside weights, in one engine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strategies.core.plain_words import cause
from tts_server.errors import EngineUnavailable

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM lays its memory out for."""


@dataclass(frozen=True, slots=True)
class LoRA:
    """One adapter of an engine."""

    number: int
    """vLLM tells adapters apart by it: from 1, each its own."""
    path: str
    """The directory that PEFT wrote."""
    rank: int
    """The least that vLLM knows and that holds the adapter's."""

    @property
    def request(self) -> Any:
        """What vLLM calls it."""
        from vllm.lora.request import LoRARequest  # noqa: PLC0415

        return LoRARequest(f"{self.number}:{self.path}", self.number, self.path)


def read_lora(path: str, number: int) -> LoRA:
    """An adapter by its directory.

    Raises:
        EngineUnavailable: there is none, or it is of a kind that vLLM does not serve.
    """
    file = Path(path) / "adapter_config.json"
    try:
        config = json.loads(file.read_text())
        kind, rank = config["peft_type"], int(config["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"{path} holds no LoRA adapter as PEFT writes it: {file.name}: {cause(error)}."
        ) from error
    if kind != "LORA" or not 1 <= rank <= _RANKS[-1]:
        raise EngineUnavailable(f"{path} is an adapter of type {kind} and rank {rank}; vLLM serves LORA up to 512.")
    return LoRA(number, str(Path(path).resolve()), next(known for known in _RANKS if known >= rank))
