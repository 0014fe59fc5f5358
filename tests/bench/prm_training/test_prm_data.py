"""`tts-bench prm-data` in a world where every label is known: a step is wrong from the first slip on."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from serving import serving, until
from slipping import GOLD, ROLLOUTS, STEPS, World, arriving, first_error
from typer import Typer
from typer.testing import CliRunner

from bench.prm_training import prm_data
from bench.prm_training.labelling import GIVE_UP, Labelling, Plan, run
from bench.prm_training.labels import LabelledSolution, Method, read_labels, settle
from bench.stored.records import RECORDS, RecordError, read_records
from bench.tasks import load, prompt
from tts_server.client import AsyncClient, TTSError
from tts_server.engines.fake import FakeEngine, FakeRequest


def plan(folder: Path, method: Method = "shepherd", problems: int = 4, **fields: Any) -> Plan:
    questions = folder / "questions.jsonl"
    rows = [{"id": f"p{i}", "question": f"What is question {i}?", "gold": GOLD} for i in range(problems)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": load(str(questions)),
        "template": prompt("boxed"),
        "method": method,
        "solutions": 3,
        "rollouts": ROLLOUTS,
        "temperature": 0.7,
        "max_tokens": 400,
        "seed": 5,
        "concurrency": 3,
        "directory": folder / "labels",
        "resume": False,
    }
    return Plan(**(settings | fields))


async def labelled(world: Any, wanted: Plan, engine: FakeEngine | None = None) -> Labelling:
    async with (
        serving(engine or FakeEngine(world)) as http,
        AsyncClient(str(http.base_url), max_retries=0) as client,
    ):
        return await run(wanted, client)


def by_id(solutions: Sequence[LabelledSolution]) -> dict[str, LabelledSolution]:
    return {solution.id: solution for solution in solutions}


def test_rollouts_from_every_step_tell_its_label_and_its_value(tmp_path: Path) -> None:
    world = World()
    outcome = asyncio.run(labelled(world, plan(tmp_path)))
    assert not outcome.failures
    assert by_id(read_labels(tmp_path / "labels")) == by_id(outcome.solutions)
    assert set(by_id(outcome.solutions)) == {f"p{i}#{k}" for i in range(4) for k in range(3)}
    slips = set()
    for solved in outcome.solutions:
        slip = first_error(solved.steps)
        slips.add(slip)
        right = STEPS if slip is None else slip
        assert solved.correct == (slip is None)
        assert solved.labels == tuple(int(k < right) for k in range(STEPS))
        inner = [arriving(k) / ROLLOUTS if k < right else 0.0 for k in range(STEPS - 1)]
        assert solved.values == (*inner, float(slip is None))
        assert solved.rollouts == (*[ROLLOUTS] * (STEPS - 1), 0)
    assert len(slips) > 2
    assert len(set(world.sampled)) == 12
    assert world.rollouts == 12 * (STEPS - 1) * ROLLOUTS


def test_a_binary_search_finds_the_same_first_error_with_fewer_rollouts(tmp_path: Path) -> None:
    whole, halves = World(), World()
    (tmp_path / "omega").mkdir()
    every = by_id(asyncio.run(labelled(whole, plan(tmp_path))).solutions)
    searched = by_id(asyncio.run(labelled(halves, plan(tmp_path / "omega", "omega"))).solutions)
    assert {id_: s.labels for id_, s in searched.items()} == {id_: s.labels for id_, s in every.items()}
    assert halves.rollouts <= whole.rollouts / 2
    for solved in searched.values():
        asked = [value is not None for value in solved.values[:-1]]
        assert sum(asked) <= 3
        assert solved.correct == (not any(asked))
        assert [bool(number) for number in solved.rollouts[:-1]] == asked


def test_every_token_is_counted(tmp_path: Path) -> None:
    engine = FakeEngine(World())
    outcome = asyncio.run(labelled(None, plan(tmp_path), engine))
    spent = [solved.usage for solved in outcome.solutions]
    assert sum(usage.completion_tokens or 0 for usage in spent) == engine.generated
    assert sum(usage.samples or 0 for usage in spent) == 12 * (1 + (STEPS - 1) * ROLLOUTS)
    assert all(usage.prompt_tokens and usage.engine_prompt_tokens and usage.cached_prompt_tokens for usage in spent)


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    world = World()
    killed = plan(tmp_path)

    async def kill() -> None:
        task = asyncio.create_task(labelled(world, killed, FakeEngine(world, token_s=0.001)))
        file = killed.directory / RECORDS
        await until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(kill())
    stood = by_id(read_labels(killed.directory))
    assert 4 <= len(stood) < 12
    with (killed.directory / RECORDS).open("ab") as file:
        file.write(b'{"id": "p3#2", "gold"')
    again = World()
    outcome = asyncio.run(labelled(again, plan(tmp_path, resume=True)))
    assert len(again.sampled) == 12 - len(stood)
    assert len(outcome.solutions) == 12
    found = by_id(read_labels(killed.directory))
    assert {id_: found[id_] for id_ in stood} == stood
    (tmp_path / "whole").mkdir()
    whole = by_id(asyncio.run(labelled(World(), plan(tmp_path / "whole"))).solutions)
    assert {id_: (s.steps, s.labels, s.values) for id_, s in found.items()} == {
        id_: (s.steps, s.labels, s.values) for id_, s in whole.items()
    }


def test_labels_of_another_recipe_do_not_mix(tmp_path: Path) -> None:
    asyncio.run(labelled(World(), plan(tmp_path, problems=1)))
    with pytest.raises(RecordError, match="--resume"):
        asyncio.run(labelled(World(), plan(tmp_path, problems=1)))
    with pytest.raises(RecordError, match=r"seed was 5, not 6"):
        asyncio.run(labelled(World(), plan(tmp_path, problems=1, seed=6, resume=True)))


def test_a_longer_run_of_the_same_problems_adds_to_the_labels(tmp_path: Path) -> None:
    first = plan(tmp_path)
    recipe = first.recipe("fake")
    assert settle(first.directory, recipe, resume=True) == []
    asyncio.run(labelled(World(), plan(tmp_path, task=load(str(tmp_path / "questions.jsonl"), limit=1), resume=True)))
    world = World()
    assert len(asyncio.run(labelled(world, plan(tmp_path, resume=True))).solutions) == 12
    assert len(world.sampled) == 9


def test_a_step_that_the_token_limit_cuts_has_no_label(tmp_path: Path) -> None:
    solutions = asyncio.run(labelled(World(), plan(tmp_path, max_tokens=20))).solutions
    for solved in solutions:
        assert solved.samples[0].finish_reason == "length"
        assert solved.steps
        assert (solved.labels[-1], solved.values[-1], solved.correct) == (None, None, False)
        assert None not in solved.labels[:-1]


def test_a_solution_without_text_is_kept_without_labels(tmp_path: Path) -> None:
    (solved,) = asyncio.run(labelled(lambda _: "", plan(tmp_path, problems=1, solutions=1))).solutions
    assert (solved.steps, solved.labels, solved.correct, solved.answer) == ((), (), False, None)


def test_an_answer_before_the_rollout_counts(tmp_path: Path) -> None:
    def script(request: FakeRequest) -> str:
        return "" if request.messages[-1]["role"] == "assistant" else f"It is \\boxed{{{GOLD}}}.\n\nI am sure."

    (solved,) = asyncio.run(labelled(script, plan(tmp_path, problems=1, solutions=1))).solutions
    assert (solved.labels, solved.values) == ((1, 1), (1.0, 1.0))


def test_a_solution_that_fails_is_told_and_labelled_by_the_next_run(tmp_path: Path) -> None:
    world = World()

    def script(request: FakeRequest) -> str:
        if "question 2" in request.text and request.messages[-1]["role"] == "assistant":
            raise RuntimeError("out of memory")
        return world(request)

    outcome = asyncio.run(labelled(script, plan(tmp_path)))
    assert sorted(failure.id for failure in outcome.failures) == ["p2#0", "p2#1", "p2#2"]
    assert len(outcome.solutions) == 9
    assert len(asyncio.run(labelled(World(), plan(tmp_path, resume=True))).solutions) == 12


def test_a_server_that_only_fails_ends_the_run(tmp_path: Path) -> None:
    asked = []

    def script(request: FakeRequest) -> str:
        asked.append(request)
        raise RuntimeError("out of memory")

    with pytest.raises(TTSError):
        asyncio.run(labelled(script, plan(tmp_path, problems=40)))
    assert GIVE_UP <= len(asked) < GIVE_UP + 3


def test_failures_among_successes_end_nothing(tmp_path: Path) -> None:
    world = World()

    def script(request: FakeRequest) -> str:
        if request.messages[-1]["role"] == "user" and (request.sampling.seed or 0) % 2:
            raise RuntimeError("out of memory")
        return world(request)

    outcome = asyncio.run(labelled(script, plan(tmp_path, problems=20, method="omega", rollouts=1)))
    assert len(outcome.failures) > GIVE_UP
    assert len(outcome.solutions) + len(outcome.failures) == 60


def test_a_model_that_is_not_there_ends_the_run_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(FakeEngine(World())) as http, AsyncClient(str(http.base_url)) as client:
            await run(plan(tmp_path), client, "nobody")

    with pytest.raises(TTSError, match="nobody"):
        asyncio.run(main())


def test_labels_are_records_that_other_commands_read(tmp_path: Path) -> None:
    asyncio.run(labelled(World(), plan(tmp_path, problems=1)))
    assert [record.gold for record in read_records(tmp_path / "labels")] == [GOLD] * 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": [1]}, "equally many"),
        ({"labels": [2] * STEPS}, "a label is 0, 1 or null"),
        ({"values": [1.5] * STEPS}, "a value is in"),
        ({"steps": "none"}, "steps"),
        ({"problem": ""}, "problem"),
    ],
)
def test_a_line_that_is_no_labelled_solution_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    asyncio.run(labelled(World(), plan(tmp_path, problems=1)))
    file = tmp_path / "labels" / RECORDS
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first, json.dumps(json.loads(rest[0]) | change), *rest[1:], ""]))
    with pytest.raises(RecordError, match=rf":2: .*{says}"):
        read_labels(file)


def test_the_command_labels_a_file_and_tells_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = Typer()
    app.command()(prm_data.command)
    plan(tmp_path, problems=2)
    arguments = ["--task", str(tmp_path / "questions.jsonl"), "--out", str(tmp_path / "labels"), "--solutions", "2"]

    async def main() -> Any:
        async with serving(FakeEngine(World())) as http:
            url = str(http.base_url)
            return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", url])

    done = asyncio.run(main())
    assert done.exit_code == 0, done.output
    assert "solutions" in done.output
    assert "generated tokens" in done.output
    assert len(read_labels(tmp_path / "labels")) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--task", "nothing"], "there is no task 'nothing'"),
        (["--task", "{questions}", "--prompt", "loud"], "there is no prompt 'loud'"),
        (["--task", "{questions}", "--url", "server"], "base_url"),
        (["--task", "{questions}", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["--task", "{questions}", "--rollouts", "0"], "rollouts"),
        (["--task", "{questions}", "--method", "guess"], "method"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = Typer()
    app.command()(prm_data.command)
    questions = str(plan(tmp_path, problems=1).directory.parent / "questions.jsonl")
    given = [argument.format(questions=questions) for argument in arguments]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "labels")])
    assert done.exit_code in (1, 2)
    assert says in done.output
    assert "Traceback" not in done.output
