"""`tts-bench prm-data`: process labels without humans, through a running server.

Solutions are sampled, and from behind their steps rolled out again: a step is right if any rollout reaches the gold
answer (Math-Shepherd, 2312.08935). With `--method omega` only as many steps are rolled out from as a binary search for
the first wrong one needs (OmegaPRM, 2406.06592). A labelled solution is on the disk as soon as it is there, so a run
that was killed goes on with `--resume` and loses only what was in flight.

    tts-bench prm-data --task gsm8k --limit 500 --out labels
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.prm_training.labelling import Labelling, Plan, run
from bench.prm_training.labels import LabelledSolution, Method
from bench.prm_training.rollouts import total
from bench.stored.records import RecordError
from bench.tasks import PROMPTS, TaskError, load, prompt, registry
from tts_server.client import AsyncClient, TTSError

TIMEOUT = httpx.Timeout(3600, connect=10)
"""All rollouts from behind a step come in one answer."""

out = Console()
err = Console(stderr=True)


def summary(solutions: Sequence[LabelledSolution]) -> list[tuple[str, str]]:
    """What a directory's labels are and cost, a line each."""
    labels = [label for solution in solutions for label in solution.labels]
    spent = total([solution.usage for solution in solutions])
    rollouts = sum(number for solution in solutions for number in solution.rollouts)
    right = sum(solution.correct is True for solution in solutions)
    return [
        ("problems", f"{len({solution.problem for solution in solutions}):,}"),
        ("solutions", f"{len(solutions):,}, {_share(right, len(solutions))} with the gold answer"),
        ("steps", f"{len(labels):,}, {_share(labels.count(1), len(labels))} labelled right, {labels.count(None)} not"),
        ("rollouts", f"{rollouts:,}"),
        ("generated tokens", _number(spent.completion_tokens)),
        (
            "prompt tokens",
            f"{_number(spent.engine_prompt_tokens)}, {_number(spent.cached_prompt_tokens)} from the cache",
        ),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _number(tokens: int | None) -> str:
    return "not told" if tokens is None else f"{tokens:,}"


def command(
    task: Annotated[str, typer.Option(help="A task's name, or a JSONL file of questions with gold answers.")],
    directory: Annotated[Path, typer.Option("--out", help="Directory of the labels.")],
    url: Annotated[str, typer.Option(help="Where the server listens.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="The policy; by default the server's first model.")] = None,
    data: Annotated[Path | None, typer.Option(help="Directory of the tasks' files.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a task; by default its train split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Problems to leave out before the first.")] = 0,
    prompt_name: Annotated[str | None, typer.Option("--prompt", help=f"One of {', '.join(PROMPTS)}.")] = None,
    method: Annotated[
        Method, typer.Option(help="From which steps is rolled out: all, or a binary search's.")
    ] = "shepherd",
    solutions: Annotated[int, typer.Option(min=1, help="Solutions a problem.")] = 8,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts from behind a step.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of solutions and rollouts.")] = 0.8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a solution, and of a rollout.")] = 512,
    seed: Annotated[int, typer.Option(help="Of all sampling.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Solutions that are labelled at once.")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a directory.")] = False,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="The server's key.")] = None,
) -> None:
    """Labels the steps of sampled solutions by rolling out from them."""
    try:
        problems = load(task, data=data, split=split or _train_split(task), limit=limit, offset=offset)
        template = prompt(prompt_name or problems.prompts[0])
        client = AsyncClient(url, api_key, timeout=TIMEOUT)
    except (TaskError, KeyError, ValueError) as error:
        raise fail(error.args[0]) from None
    if problems.split == "test":
        err.print("[yellow]warning:[/] these are problems to report on; nothing may be trained on them")
    plan = Plan(
        task=problems,
        template=template,
        method=method,
        solutions=solutions,
        rollouts=rollouts,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        directory=directory,
        resume=resume,
    )
    try:
        outcome = asyncio.run(_run(plan, client, model))
    except (RecordError, TTSError) as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        err.print(f"stopped; what is labelled stands in {escape(str(directory))}: go on with --resume")
        raise typer.Exit(130) from None
    _tell(outcome)


def fail(message: object) -> typer.Exit:
    """One sentence on stderr and exit code 1."""
    err.print(f"[red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    return typer.Exit(1)


async def _run(plan: Plan, client: AsyncClient, model: str | None) -> Labelling:
    async with client:
        return await run(plan, client, model)


def _train_split(task: str) -> str | None:
    source = registry().get(task)
    return "train" if source and "train" in source.splits else None


def _tell(outcome: Labelling) -> None:
    table = Table(show_header=False, box=None)
    for name, value in summary(outcome.solutions):
        table.add_row(name, value)
    out.print(table)
    if outcome.failures:
        first = outcome.failures[0]
        raise fail(
            f"{len(outcome.failures)} solutions failed, the first ({first.id}) because: {first.cause} "
            "Try them again with --resume."
        )
