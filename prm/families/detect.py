"""Detects the family that a model belongs to from its config, its tokenizer and its name."""

from importlib import import_module
from typing import Any

from prm.base import PRMError
from prm.families.contract import FAMILY_KEY, Config, Family

FAMILIES = ("qwen_math", "math_shepherd", "rlhflow", "skywork", "trl", "outcome", "labels")
"""The files of this package, each of which lays solutions out for one family of models.

Each has `recognises(config, name)`, and `build(config, tokenizer, name, separator)` that raises PRMError for a model
without the family's tokens or head.
"""


def detect(config: Config, tokenizer: Any, name: str = "", *, separator: str | None = None) -> Family:
    """Returns the one family that a model matches.

    Args:
        config: the model's `config.json`.
        tokenizer: of transformers.
        name: its hub id or directory: a language model says by nothing else that it was trained to score.
        separator: of steps, for the families that were trained with several.

    Raises:
        PRMError: no family matches, or several do.
    """
    if family := config.get(FAMILY_KEY):
        return build(family, config, tokenizer, name, separator=separator)
    matches = [family for family in FAMILIES if _module(family).recognises(config, name)]
    if len(matches) == 1:
        return build(matches[0], config, tokenizer, name, separator=separator)
    kind = ", ".join(config.get("architectures") or ["no architecture"])
    raise PRMError(
        f"the family of the reward model {name!r} ({kind}) cannot be detected from its config and name; "
        f"name it, one of: {', '.join(FAMILIES)}"
    )


def build(family: str, config: Config, tokenizer: Any, name: str = "", *, separator: str | None = None) -> Family:
    """Returns a family's layout for a model.

    Raises:
        PRMError: there is no such family, or the model lacks its tokens or its head.
    """
    if family not in FAMILIES:
        raise PRMError(f"a family of reward models is one of {', '.join(FAMILIES)}, got {family!r}")
    built: Family = _module(family).build(config, tokenizer, name, separator)
    return built


def _module(family: str) -> Any:
    return import_module(f"{__package__}.{family}")
