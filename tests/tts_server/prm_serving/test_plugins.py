"""Reward models of other packages, by their entry points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prm import FakePRM
from tts_server.app import build_prms
from tts_server.config import ConfigError, Settings
from tts_server.engines.fake import FakeEngine

CODE = """
from prm import FakePRM

class Mine(FakePRM):
    def __init__(self, seed=0):
        super().__init__(name="mine", seed=seed)

def nothing():
    return 3

def broken():
    raise RuntimeError("no\\nweights")
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Puts a distribution with one reward model where Python finds it, as pip would, and builds it."""
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (tmp_path / "plugin_of_rewards.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)

    def build(name: str, value: str, prm: str | None = None, **args: Any) -> Any:
        (info / "entry_points.txt").write_text(f"[tts_server.reward_models]\n{name} = {value}\n")
        return build_prms(Settings(prm=prm or name, prm_args=args), FakeEngine())

    return build


def test_it_is_made_with_the_arguments_of_the_settings(plugin: Callable[..., Any]) -> None:
    (made,) = plugin("mine", "plugin_of_rewards:Mine", seed=4)
    assert isinstance(made, FakePRM)
    assert made.name == "mine"
    assert [prm.name for prm in plugin("mine", "plugin_of_rewards:Mine", "judge, mine")] == ["judge", "mine"]


def test_a_built_in_one_keeps_its_name(plugin: Callable[..., Any]) -> None:
    (made,) = plugin("fake", "plugin_of_rewards:Mine")
    assert made.name == "fake"


@pytest.mark.parametrize(
    ("name", "value", "args", "why"),
    [
        ("mine", "plugin_of_rewards:Mine", {"sed": 4}, "TypeError: .* unexpected keyword argument 'sed'"),
        ("mine", "no_such_module:Mine", {}, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("mine", "plugin_of_rewards:broken", {}, "RuntimeError: no weights$"),
        ("mine", "plugin_of_rewards:nothing", {}, "makes no reward model: 3"),
        ("yours", "plugin_of_rewards:Mine", {}, "makes a reward model with the name 'mine'"),
    ],
)
def test_what_makes_none_is_an_error_of_the_configuration(
    plugin: Callable[..., Any], name: str, value: str, args: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=f"^prm: {value}, the plug-in '{name}', .*{why}"):
        plugin(name, value, **args)


def test_an_unknown_name_is_answered_with_the_plugins(plugin: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="'other:' is no reward model; it is judge, generative, fake, none, mine, or"):
        plugin("mine", "plugin_of_rewards:Mine", "other:")
