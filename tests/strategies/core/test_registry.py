import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError
from searching import TASK, begin, search

import strategies
from prm import ProcessRewardModel
from strategies import strategy
from strategies.core import registry
from strategies.core.account import Account
from strategies.core.contracts import Candidate, Engine, Event, Final, Prompt, Refused, Sample, Task
from tts_server.engines.fake import FakeEngine


@pytest.fixture(autouse=True)
def _registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    strategies.registry()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    yield
    registry._load.cache_clear()


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
    assert entry.options.model_validate({"width": 3}).model_dump(exclude_none=True) == {"width": 3, "depth": 2.0}
    schema = entry.options.model_json_schema()
    assert schema["required"] == ["width"]
    assert schema["properties"]["width"]["minimum"] == 1
    assert schema["properties"]["depth"]["description"] == "How deep."


@pytest.mark.parametrize("options", [{}, {"width": 0}, {"width": "3"}, {"width": 3, "task": 1}, {"width": 3, "n": 1}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    register("unheard_of")
    with pytest.raises(ValidationError):
        strategies.get("unheard_of").options.model_validate(options)


HALF = """
from strategies import strategy

@strategy("half_of_a_plugin", paper="none")
async def half(task, context): yield

"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_module_of_a_plugin", "No module named 'no_such_module_of_a_plugin'"),
        (HALF + "raise RuntimeError('one line\\nand another')", "RuntimeError: one line and another"),
        (HALF + "exit(3)", "SystemExit: 3"),
        (HALF.replace("half_of_a_plugin", "best_of_n"), "'best_of_n' is registered already"),
    ],
)
def test_a_plugin_that_does_not_import_is_left_out_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str, why: str
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tts_server.strategies]\nbroken_point = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    registry._load.cache_clear()
    assert {"best_of_n", "single"} <= strategies.registry().keys()
    assert "half_of_a_plugin" not in strategies.registry()
    (line,) = caplog.messages
    assert "\n" not in line
    assert line.startswith("strategies: broken_point of broken-package is left out: broken_plugin does not load: ")
    assert why in line


def test_every_strategy_is_given_a_task_with_its_system_prompt_and_examples() -> None:
    tasks: list[Task] = []

    @strategy("prompted_by_all", paper="none")
    async def run(
        task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account
    ) -> AsyncGenerator[Event, None]:
        tasks.append(task)
        yield Final((Candidate(Sample()),), (0,))

    entry = strategies.get("prompted_by_all")
    assert [*entry.options.model_fields] == ["system_prompt", "examples"]
    shot = {"question": "1 + 1?", "answer": "2"}
    asyncio.run(search(entry, FakeEngine(), system_prompt="Think.", examples=[shot]))
    (task,) = tasks
    assert [turn["content"] for turn in task.prompt.messages[:-1]] == ["Think.", "1 + 1?", "2"]


def test_a_strategy_applies_the_options_that_are_among_its_own_keywords() -> None:
    prompts: list[str | None] = []

    @strategy("prompted_by_itself", paper="none")
    async def run(
        task: Task,
        engine: Engine,
        prm: ProcessRewardModel | None,
        account: Account,
        *,
        system_prompt: Annotated[str | None, Field(description="Its own.")] = "mine",
    ) -> AsyncGenerator[Event, None]:
        prompts.append(system_prompt)
        assert task == TASK
        yield Final((Candidate(Sample()),), (0,))

    entry = strategies.get("prompted_by_itself")
    assert [*entry.options.model_fields] == ["system_prompt", "examples"]
    asyncio.run(search(entry, FakeEngine()))
    assert prompts == ["mine"]


@pytest.mark.parametrize(
    ("about", "task", "param"),
    [
        ({"needs_prm": True}, TASK, "tts.prm"),
        ({"edits": True}, replace(TASK, sampling=replace(TASK.sampling, logprobs=0)), "logprobs"),
        ({"chat": True}, Task(Prompt(token_ids=(1, 2))), "messages"),
        ({}, replace(TASK, choices=3), "n"),
    ],
)
def test_what_a_strategy_cannot_do_is_refused_at_its_first_event(about: dict[str, Any], task: Task, param: str) -> None:
    @strategy("limited", paper="none", **about)
    async def run(
        task: Task,
        engine: Engine,
        prm: ProcessRewardModel | None,
        account: Account,
        *,
        n: Annotated[int, Field(description="Samples.")] = 2,
    ) -> AsyncGenerator[Event, None]:
        raise AssertionError("it has begun")
        yield

    events = begin(strategies.get("limited"), FakeEngine(), task=task)
    with pytest.raises(Refused) as caught:
        asyncio.run(anext(events))  # type: ignore[arg-type]
    assert caught.value.param == param
