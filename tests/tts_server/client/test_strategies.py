"""The client's class of each strategy against the server's strategies."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import tts_server.client
import tts_server.client.strategies as typed
from strategies import Entry
from tts_server.client.options import StrategyOptions, tts_fields

TOOL = Path(__file__).parents[3] / "docs" / "tools" / "write_client.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_client", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = loaded()


def test_the_classes_are_those_of_the_strategies() -> None:
    assert WRITER.CLASSES.read_text() == WRITER.written(), f"run: {WRITER.COMMAND}"


@pytest.mark.parametrize("entry", WRITER.own(), ids=lambda entry: str(entry.name))
def test_what_is_not_given_is_not_sent_and_none_is_null(entry: Entry) -> None:
    assert {"system_prompt", "examples"} <= entry.options.model_fields.keys()
    kind = getattr(typed, WRITER.class_name(entry.name))
    assert issubclass(kind, StrategyOptions)
    assert tts_fields(kind()) == {"strategy": entry.name}
    assert tts_fields(kind(examples=None)) == {"strategy": entry.name, "examples": None}


def test_every_class_is_exported() -> None:
    assert {WRITER.class_name(entry.name) for entry in WRITER.own()} <= set(tts_server.client.__all__)
