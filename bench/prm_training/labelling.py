"""Labelling through a server: what is still to be labelled, many solutions at once, each stored when it is done."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.prm_training.labels import LabelledSolution, Method, Recipe, settle, solution_id
from bench.prm_training.rollouts import Chat, Completion, Draw, Drawn, labelled
from bench.stored.records import RecordWriter, Usage
from bench.tasks import Problem, PromptTemplate, Task
from tts_server.client import (
    AsyncClient,
    AuthenticationFailed,
    ChatResult,
    NotFound,
    TTSError,
    UnexpectedAnswer,
    UnsupportedParameter,
)

HOPELESS = (AuthenticationFailed, NotFound, UnsupportedParameter)
"""What the next request would meet too."""
GIVE_UP = 20
"""Failures in a row after which the server is taken for gone."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One solution to sample and label."""

    problem: Problem
    number: int

    @property
    def id(self) -> str:
        return solution_id(self.problem.id, self.number)


@dataclass(frozen=True, slots=True)
class Failure:
    """A solution that could not be labelled."""

    id: str
    cause: TTSError


def policy(client: AsyncClient, recipe: Recipe) -> Draw:
    """The server's model, sampled as the recipe says; a chat that ends in an assistant's turn is continued there."""

    async def draw(chat: Chat, n: int, seed: int) -> Drawn:
        continues = chat[-1]["role"] == "assistant"
        reply = await client.chat(
            chat,
            model=recipe.model,
            tts="single",
            n=n,
            seed=seed,
            temperature=recipe.temperature,
            max_tokens=recipe.max_tokens,
            add_generation_prompt=not continues,
            continue_final_message=continues,
        )
        if len(reply.choices) != n:
            raise UnexpectedAnswer(f"The server gave {len(reply.choices)} of {n} samples.")
        completions = (Completion(c.message.content or "", c.finish_reason or "length") for c in reply.choices)
        return Drawn(tuple(completions), _usage(reply, n))

    return draw


def _usage(reply: ChatResult, samples: int) -> Usage:
    if reply.usage is None:
        return Usage(samples=samples)
    return Usage(
        prompt_tokens=reply.usage.prompt_tokens,
        engine_prompt_tokens=reply.tts.usage.engine_prompt_tokens if reply.tts else None,
        cached_prompt_tokens=reply.tts.usage.cached_prompt_tokens if reply.tts else None,
        completion_tokens=reply.usage.completion_tokens,
        samples=samples,
    )


async def work(
    units: Iterable[Unit],
    label: Callable[[Unit], Awaitable[LabelledSolution]],
    done: Callable[[LabelledSolution], None],
    concurrency: int,
) -> list[Failure]:
    """Labels every unit, `concurrency` at a time; the failures are those of single units.

    Raises:
        TTSError: the server refuses all, or has failed `GIVE_UP` times in a row.
    """
    queue = iter(units)
    failures: list[Failure] = []
    in_a_row = 0

    async def worker() -> None:
        nonlocal in_a_row
        for unit in queue:
            try:
                solution = await label(unit)
            except HOPELESS:
                raise
            except TTSError as error:
                failures.append(Failure(unit.id, error))
                in_a_row += 1
                if in_a_row >= GIVE_UP:
                    raise
            else:
                in_a_row = 0
                done(solution)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except* TTSError as errors:
        raise errors.exceptions[0] from None
    return failures


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asks for."""

    task: Task
    template: PromptTemplate
    method: Method
    solutions: int
    rollouts: int
    temperature: float
    max_tokens: int
    seed: int
    concurrency: int
    directory: Path
    resume: bool

    def recipe(self, model: str) -> Recipe:
        return Recipe(
            task=self.task.name,
            split=self.task.split,
            data=self.task.source,
            data_sha256=self.task.sha256,
            prompt_text=json.dumps(self.template.messages("{question}")),
            model=model,
            method=self.method,
            solutions=self.solutions,
            rollouts=self.rollouts,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )

    @property
    def units(self) -> list[Unit]:
        return [Unit(problem, number) for problem in self.task.problems for number in range(self.solutions)]


@dataclass(frozen=True, slots=True)
class Labelling:
    """What a run leaves: every labelled solution of its directory, and what failed."""

    solutions: list[LabelledSolution]
    failures: list[Failure]


async def run(plan: Plan, client: AsyncClient, model: str | None = None) -> Labelling:
    """Labels what the plan's directory does not hold yet.

    Raises:
        RecordError: the directory cannot be written, or holds labels of another recipe.
        TTSError: the server refuses all, or is gone.
    """
    recipe = plan.recipe(model or await _first_model(client))
    solutions = settle(plan.directory, recipe, resume=plan.resume)
    known = {solution.id for solution in solutions}
    todo = [unit for unit in plan.units if unit.id not in known]
    draw = policy(client, recipe)

    async def label(unit: Unit) -> LabelledSolution:
        chat = plan.template.messages(unit.problem.question)
        return await labelled(unit.problem, unit.number, chat, recipe, draw)

    with RecordWriter(plan.directory) as writer, _Bar(len(plan.units), len(plan.units) - len(todo)) as bar:

        def done(solution: LabelledSolution) -> None:
            writer.append(solution)
            solutions.append(solution)
            bar.advance(solution.usage.completion_tokens or 0)

        failures = await work(todo, label, done, plan.concurrency)
    return Labelling(solutions, failures)


async def _first_model(client: AsyncClient) -> str:
    models = await client.models()
    if not models:
        raise UnexpectedAnswer("The server has no model.")
    return models[0].id


class _Bar:
    """Solutions and generated tokens of this run, on a terminal."""

    def __init__(self, units: int, known: int) -> None:
        console = Console(stderr=True)
        counts = (MofNCompleteColumn(), TextColumn("{task.fields[tokens]:,} tokens"))
        self._progress = Progress(
            TextColumn("labelling"),
            BarColumn(),
            *counts,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._row = self._progress.add_task("", total=units, completed=known, tokens=0)
        self._tokens = 0

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, tokens: int) -> None:
        """One more solution, of so many generated tokens."""
        self._tokens += tokens
        self._progress.update(self._row, advance=1, tokens=self._tokens)
