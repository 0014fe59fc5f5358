"""The reference pages have every public name. That each name exists is for `make docs` to find out, which is strict."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import prm
import tts_server.client
from strategies import kit
from tts_server import config

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SETTINGS = [
    name
    for name, kind in vars(config).items()
    if isinstance(kind, type)
    and kind.__module__ == config.__name__
    and hasattr(kind, "model_fields")
    and name[0] != "_"
]


def entries(page: str) -> set[str]:
    """What a page asks to be written out: names, and modules with all that they hold."""
    return set(re.findall(r"^::: (\S+)$", (REFERENCE / page).read_text(), re.MULTILINE))


def has_entry(page: str, module: ModuleType, name: str) -> bool:
    """Whether a public name, or the module that defines it, is written out."""
    home = getattr(getattr(module, name), "__module__", "")
    return bool({f"{module.__name__}.{name}", home, f"{home}.{name}"} & entries(page))


@pytest.mark.parametrize("name", [name for name in tts_server.client.__all__ if name != "Event"])
def test_every_name_of_the_sdk_has_an_entry(name: str) -> None:
    assert has_entry("sdk.md", tts_server.client, name)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_table_of_settings_has_an_entry(name: str) -> None:
    assert f"{config.__name__}.{name}" in entries("settings.md")


def test_the_contract_of_a_reward_model_has_its_entries() -> None:
    contract = {kind.__module__ for kind in (prm.ProcessRewardModel, prm.StepScores, prm.Family, prm.Backend)}
    assert contract <= entries("reward_models.md")


@pytest.mark.parametrize("name", kit.__all__)
def test_every_name_of_the_strategy_kit_has_an_entry(name: str) -> None:
    assert has_entry("strategy_kit.md", kit, name)
