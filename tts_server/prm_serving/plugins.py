"""The reward models of other packages, which the entry point group `tts_server.reward_models` names."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from prm import ProcessRewardModel
from tts_server.config import ConfigError


def plugins() -> dict[str, EntryPoint]:
    """What makes each of them, by its name."""
    return {point.name: point for point in entry_points(group="tts_server.reward_models")}


def plugged_in(name: str, args: Mapping[str, Any]) -> ProcessRewardModel:
    """The reward model of that name, made with `prm_args`.

    Raises:
        ConfigError: it cannot be made, or it has another name or is something else.
    """
    point = plugins()[name]
    try:
        made = point.load()(**args)
    except (Exception, SystemExit) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"prm: {point.value}, the plug-in {name!r}, fails with {why}") from error
    if not isinstance(made, ProcessRewardModel):
        raise ConfigError(f"prm: {point.value}, the plug-in {name!r}, makes no reward model: {made!r:.80}")
    if made.name != name:
        raise ConfigError(f"prm: {point.value}, the plug-in {name!r}, makes a reward model with the name {made.name!r}")
    return made
