"""`tts-bench run` and `tts-bench repeat`: asks a running server every problem of a task.

tts-bench run --task gsm8k --strategy best_of_n --n 8 --limit 200 --out runs/bon8
tts-bench repeat runs/bon8 --out runs/bon8-again
"""

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.reporting.cost import cost_of
from bench.reporting.figures import summary
from bench.running.ask import RunError
from bench.running.progress import RunProgress
from bench.running.runner import Job, run
from bench.stored.manifest import Settings, read_manifest
from bench.stored.records import RecordError
from bench.tasks import PromptTemplate, Task, TaskError, load, prompt, registry

QUESTION = "{question}"
TAKEN = ("model", "messages", "stream", "stream_options", "tts")

Out = Annotated[Path, typer.Option(help="Directory of the records and their manifest.")]
URL = Annotated[str, typer.Option(help="Base URL of the server, any that speaks OpenAI's API.")]
Key = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="The server's API key.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Directory with the tasks' files; else TTS_BENCH_DATA names it, else the hub has them."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the records that are there.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds until an answer is there; streamed, its next bytes.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds to wait for a server that went away during the run.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def command(
    task: Annotated[str, typer.Option(help="Name of a task, or path of a JSONL file with questions and answers.")],
    out: Out,
    strategy: Annotated[
        str | None, typer.Option(help="A name of `tts-server strategies`; none is a plain request, to any server.")
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="The strategy's n; without one, OpenAI's n.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="A key of `tts`, as name=value; values may be JSON.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model or alias; by default the server's first.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data set; by default the one results are on.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems to ask; all by default.")] = None,
    offset: Annotated[int, typer.Option(min=0, help="Problems to leave out at the start.")] = 0,
    template: Annotated[
        str | None, typer.Option("--prompt", help="Prompt template; by default the task's first.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one sample.")] = 1024,
    seed: Annotated[int, typer.Option(help="Sent with every request.")] = 0,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="Another field of the request, as name=value; null leaves one out, such as temperature=null."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems asked at once.")] = 8,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream the answers: tells the time to the first token.")
    ] = False,
    resume: Resume = False,
    url: URL = DEFAULT_URL,
    api_key: Key = None,
    data: Data = None,
    timeout: Timeout = 3600,
    patience: Patience = 300,
    parameters: Annotated[
        float | None, typer.Option(help="Weights of the model, such as 494e6, to estimate FLOPs; else by its name.")
    ] = None,
) -> None:
    """Asks a running server every problem of a task, grades the answers and writes a record each."""
    options, sampling = named(option, "--option"), named(field, "--field")
    if taken := [name for name in TAKEN if name in sampling]:
        raise fail(f"--field: {taken[0]} has an option of its own, or is the runner's")
    if taken := [name for name in ("strategy", "return_candidates") if name in options]:
        raise fail(f"--option: {taken[0]} has an option of its own, or is the runner's")
    if n is not None:
        place = sampling if strategy is None else options
        if "n" in place:
            raise fail("--n: n is given twice")
        place["n"] = n
    sampling = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed, **sampling}
    problems = loaded(task, data, split, limit, offset)
    chosen = template_of(template or problems.prompts[0])
    settings = Settings(
        task=task,
        split=problems.split,
        source=problems.source,
        data_sha256=problems.sha256,
        prompt=chosen.name,
        messages=tuple(chosen.messages(QUESTION)),
        model=model or "",
        strategy=strategy,
        options=options,
        sampling={name: value for name, value in sampling.items() if value is not None},
        stream=stream,
        concurrency=concurrency,
        offset=offset,
    )
    start(
        Job(
            settings,
            problems.problems,
            chosen,
            out,
            url,
            typed(sys.argv[1:]),
            api_key,
            limit,
            parameters,
            resume,
            timeout,
            patience,
        )
    )


def repeat(
    run_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's directory; its manifest is all that is read.")
    ],
    out: Out,
    resume: Resume = False,
    url: URL = DEFAULT_URL,
    api_key: Key = None,
    data: Data = None,
    timeout: Timeout = 3600,
    patience: Patience = 300,
) -> None:
    """Runs again what a run's manifest describes."""
    try:
        manifest = read_manifest(run_dir)
    except RecordError as error:
        raise fail(error) from None
    if manifest is None:
        raise fail(f"{run_dir} has no manifest")
    settings = manifest.settings
    split = settings.split if settings.task in registry() else None
    problems = loaded(settings.task, data, split, manifest.limit, settings.offset)
    if problems.sha256 != settings.data_sha256:
        raise fail(f"the problems of {settings.task} are not those of {run_dir}: their SHA-256 is {problems.sha256}")
    start(
        Job(
            settings,
            problems.problems,
            rebuilt(settings),
            out,
            url,
            typed(sys.argv[1:]),
            api_key,
            manifest.limit,
            manifest.parameters,
            resume,
            timeout,
            patience,
        )
    )


def start(job: Job) -> None:
    """Runs a job to its end and says how it went."""
    err = Console(stderr=True)
    try:
        with RunProgress(err) as progress:
            outcome = asyncio.run(run(job, progress))
    except (RunError, RecordError, ValueError) as error:
        raise fail(error) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        err.print(f"stopped; the records in {job.out} stand, go on with --resume", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if outcome.records:
        Console().print(summary(outcome.records, cost_of(outcome.records, outcome.manifest)))
    if outcome.missing:
        err.print(f"{outcome.missing} problems have no record yet; go on with --resume", markup=False, soft_wrap=True)
        raise typer.Exit(130 if outcome.interrupted else 1)


def typed(arguments: Sequence[str]) -> str:
    """The command as the user gave it, without the key."""
    shown = list(arguments)
    for i, argument in enumerate(shown):
        if argument == "--api-key" and i + 1 < len(shown):
            shown[i + 1] = "…"
        elif argument.startswith("--api-key="):
            shown[i] = "--api-key=…"
    return shlex.join(["tts-bench", *shown])


def loaded(task: str, data: Path | None, split: str | None, limit: int | None, offset: int) -> Task:
    try:
        return load(task, data=data, split=split, limit=limit, offset=offset)
    except TaskError as error:
        raise fail(error) from None


def template_of(name: str) -> PromptTemplate:
    try:
        return prompt(name)
    except KeyError as error:
        raise fail(error.args[0]) from None


def rebuilt(settings: Settings) -> PromptTemplate:
    """The template that a manifest holds, whatever that name means today."""
    turns = list(settings.messages)
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
    texts = [turn["content"] for turn in turns[:-1]]
    return PromptTemplate(settings.prompt, "", system, tuple(zip(texts[::2], texts[1::2], strict=True)))


def named(pairs: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """`name=value` pairs; a value that is JSON is read as such."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise fail(f"{flag}: is written name=value, got {pair!r}")
        if name in found:
            raise fail(f"{flag}: {name} is given twice")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def fail(error: object) -> typer.Exit:
    """Says what is wrong; to be raised."""
    Console(stderr=True).print(f"[red]error:[/] {escaped(error)}", soft_wrap=True, highlight=False)
    return typer.Exit(1)


def escaped(error: object) -> str:
    """As rich prints it unchanged."""
    return str(error).replace("[", r"\[")
