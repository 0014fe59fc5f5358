from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

import strategies
from prm import ProcessRewardModel
from strategies import strategy
from strategies.base import Candidate, Engine, Event, Final, Sample, Task
from strategies.budget import Account


@pytest.fixture(autouse=True)
def _registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    strategies.registry()
    monkeypatch.setattr(strategies, "_entries", dict(strategies._entries))
    yield
    strategies._load.cache_clear()


def register(name: str, **about: Any) -> None:
    @strategy(name, **{"paper": "none", **about})
    async def run(
        task: Task,
        engine: Engine,
        prm: ProcessRewardModel | None,
        account: Account,
        *,
        width: Annotated[int, Field(ge=1, description="How wide.")],
        depth: Annotated[float, Field(description="How deep.")] = 2.0,
    ) -> AsyncGenerator[Event, None]:
        """Does nothing.

        In many words.
        """
        yield Final((Candidate(Sample()),), (0,))


def test_every_file_with_a_strategy_is_found_and_sorted() -> None:
    known = strategies.registry()
    assert {"best_of_n", "self_consistency", "single"} <= set(known)
    assert list(known) == sorted(known)
    files = Path(strategies.__file__).parent.glob("*.py")
    assert {path.stem for path in files if "\n@strategy(" in path.read_text()} <= set(known)
    assert all(strategies.get(name) is entry for name, entry in known.items())


def test_what_is_not_registered_is_not_there() -> None:
    with pytest.raises(KeyError):
        strategies.get("no_such_strategy")


def test_a_name_is_taken_once() -> None:
    register("unheard_of")
    with pytest.raises(ValueError, match="'unheard_of' is registered already"):
        register("unheard_of")


def test_options_are_derived_from_the_signature() -> None:
    register("unheard_of", scored=True, continues=True)
    entry = strategies.get("unheard_of")
    assert entry.description == "Does nothing."
    assert (entry.paper, entry.scored, entry.continues) == ("none", True, True)
    assert entry.options.model_validate({"width": 3}).model_dump() == {"width": 3, "depth": 2.0}
    schema = entry.options.model_json_schema()
    assert schema["required"] == ["width"]
    assert schema["properties"]["width"]["minimum"] == 1
    assert schema["properties"]["depth"]["description"] == "How deep."


@pytest.mark.parametrize("options", [{}, {"width": 0}, {"width": "3"}, {"width": 3, "task": 1}, {"width": 3, "n": 1}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    register("unheard_of")
    with pytest.raises(ValidationError):
        strategies.get("unheard_of").options.model_validate(options)


def test_a_plugin_that_does_not_import_says_so_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tts_server.strategies]\nbroken = no_such_module_of_a_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    strategies._load.cache_clear()
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_of_a_plugin"):
            strategies.registry()
