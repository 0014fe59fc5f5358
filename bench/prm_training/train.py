"""`tts-bench prm-train`: fine-tunes a small process reward model on the labels of `tts-bench prm-data`.

A LoRA adapter that answers each step with one of two label tokens, or a token classification model of TRL's format,
trained with binary cross-entropy at the steps' ends. Problems that are held out tell how well it ranks steps, before
and after, and whether it chooses better answers than a vote. `--prm` loads the directory.

    tts-bench prm-train --labels labels --base qwen2.5-0.5b --out prm
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.failures import check_file
from bench.prm_training.evaluate import AUC, Chooser, Scores, best_of_n, step_auc
from bench.prm_training.labels import LabelledSolution, Recipe, read_labels, read_recipe
from bench.prm_training.models import DType, HeadKind, load, save
from bench.prm_training.prm_data import fail, summary
from bench.prm_training.tuning import Example, Options, Tuned, example, score, train, updates
from bench.running.run import typed
from bench.stored.machine import machine, versions
from bench.stored.records import RecordError
from prm import PRMError

Targets = Literal["hard", "soft"]

console = Console()


class TrainingError(Exception):
    """The labels do not do for what is asked."""


@dataclass(frozen=True, slots=True)
class Split:
    """The solutions of two sets of problems."""

    train: list[LabelledSolution]
    held_out: list[LabelledSolution]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is on the problems that it was not trained on."""

    before: AUC
    after: AUC
    rows: list[Chooser]


@dataclass(frozen=True, slots=True)
class Training:
    """What was trained on, and how it went."""

    solutions: int
    steps: int
    cut: int
    """Labelled steps that were left out because they end beyond the longest input."""
    losses: list[float]
    """Of each update, a step."""
    seconds: float


def split_by_problem(solutions: Sequence[LabelledSolution], share: float, seed: int) -> Split:
    """Puts `share` of the problems aside, at least one; the order of the solutions does not matter.

    Raises:
        TrainingError: there are fewer than two problems.
    """
    problems = sorted({solution.problem for solution in solutions})
    if len(problems) < 2:
        raise TrainingError(f"training needs the labels of at least two problems, there are {len(problems)}")
    Random(seed).shuffle(problems)
    aside = set(problems[: min(len(problems) - 1, max(1, round(share * len(problems))))])
    ordered = sorted(solutions, key=lambda solution: (solution.problem, solution.number))
    return Split([s for s in ordered if s.problem not in aside], [s for s in ordered if s.problem in aside])


def targets_of(solution: LabelledSolution, kind: Targets) -> list[float | None]:
    """P(right) to be learnt at each step: the label, or the share of rollouts that arrived.

    Raises:
        TrainingError: the shares are wanted and were not told.
    """
    if kind == "hard":
        return [*solution.labels]
    if any(label is not None and value is None for label, value in zip(solution.labels, solution.values, strict=True)):
        raise TrainingError(
            f"the solution {solution.id!r} has steps without rollouts: soft labels need those of --method shepherd"
        )
    return [*solution.values]


def examples_of(tuned: Tuned, solutions: Sequence[LabelledSolution], kind: Targets, max_len: int) -> list[Example]:
    """The solutions that have steps, as the model reads them."""
    return [
        example(tuned.family, s.question, s.steps, targets_of(s, kind), s.id, max_len) for s in solutions if s.steps
    ]


def fit(tuned: Tuned, solutions: Sequence[LabelledSolution], kind: Targets, max_len: int, options: Options) -> Training:
    """Trains on the labelled steps that end within `max_len` tokens.

    Raises:
        TrainingError: there are none.
    """
    all_targets = sum(target is not None for s in solutions for target in targets_of(s, kind))
    examples = [e for e in examples_of(tuned, solutions, kind, max_len) if any(t is not None for t in e.targets)]
    steps = sum(target is not None for e in examples for target in e.targets)
    if not examples:
        raise TrainingError(f"no labelled step ends within {max_len} tokens")
    losses: list[float] = []
    began = time.perf_counter()
    with _progress(updates(len(examples), options)) as told:

        def on_update(loss: float) -> None:
            losses.append(loss)
            told(loss)

        train(tuned, examples, options, on_update)
    return Training(len(examples), steps, all_targets - steps, losses, time.perf_counter() - began)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[float], None]]:
    stderr = Console(stderr=True)
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )
    row = bar.add_task("", total=total, loss=float("nan"))
    with bar:
        yield lambda loss: bar.update(row, advance=1, loss=loss)


def judge(tuned: Tuned, solutions: Sequence[LabelledSolution], micro_tokens: int) -> Scores:
    """The scores of all steps.

    Raises:
        TrainingError: a solution is longer than the model's context.
    """
    limit = tuned.max_len
    examples = examples_of(tuned, solutions, "hard", limit)
    steps = {solution.id: len(solution.steps) for solution in solutions}
    long = next((e.id for e in examples if len(e.layout.ends) < steps[e.id]), None)
    if long is not None:
        raise TrainingError(f"the solution {long!r} is longer than the model's context of {limit} tokens")
    return dict.fromkeys(steps, ()) | score(tuned, examples, micro_tokens)


def report(training: Training, split: Split, evaluation: Evaluation) -> list[str]:
    """What came of it, as Markdown."""
    tenth = max(1, len(training.losses) // 10)
    first, last = fmean(training.losses[:tenth]), fmean(training.losses[-tenth:])
    return [
        f"- trained on {_counted(split.train)}: {training.steps} labelled steps of {training.solutions} solutions, "
        f"{len(training.losses)} updates in {training.seconds:.0f} s, loss {first:.3f} at first and {last:.3f} at last "
        f"(means of {tenth} updates); {training.cut} steps left out as too far behind",
        f"- held out: {_counted(split.held_out)}",
        f"- step AUC before training: {evaluation.before}",
        f"- step AUC after training: {evaluation.after}",
        "",
        "| answer of | accuracy | 95 % interval | points against majority |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row.cells)} |" for row in evaluation.rows),
    ]


def _counted(solutions: Sequence[LabelledSolution]) -> str:
    return f"{len({solution.problem for solution in solutions})} problems with {len(solutions)} solutions"


def described(recipe: Recipe | None, solutions: Sequence[LabelledSolution]) -> list[str]:
    """Where the labels are from, as Markdown."""
    made = (
        f"{recipe.method}: {recipe.solutions} solutions a problem and {recipe.rollouts} rollouts a step by "
        f"{recipe.model} at temperature {recipe.temperature:g}, seed {recipe.seed}, on {recipe.task}/{recipe.split}"
        if recipe
        else "of an unknown recipe"
    )
    return [f"- labels: {made}", *(f"- {name}: {value}" for name, value in summary(solutions))]


def command(
    labels: Annotated[Path, typer.Option(help="Directory that `tts-bench prm-data` wrote.")],
    base: Annotated[str, typer.Option(help="The model to fine-tune: a directory, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Directory to write the reward model to.")],
    head: Annotated[
        HeadKind, typer.Option(help="Label tokens as a LoRA adapter, or a TRL classification model.")
    ] = "labels",
    targets: Annotated[Targets, typer.Option(help="Learn the labels, or the share of rollouts that arrived.")] = "hard",
    held_out: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the problems to evaluate on.")] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the solutions.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Solutions an update.")] = 16,
    micro_tokens: Annotated[int, typer.Option(min=1, help="Tokens a forward pass; more are accumulated.")] = 4096,
    max_len: Annotated[int, typer.Option(min=1, help="Tokens of a solution; later steps are not trained on.")] = 2048,
    learning_rate: Annotated[float, typer.Option(min=0, help="Its highest, after the warm-up.")] = 2e-4,
    rank: Annotated[int, typer.Option(min=1, help="Of the LoRA matrices.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the split, the order and the adapter.")] = 0,
    dtype: Annotated[DType, typer.Option(help="auto: bfloat16 on a GPU, else float32.")] = "auto",
    report_file: Annotated[Path | None, typer.Option("--report", help="Markdown file of the figures.")] = None,
) -> None:
    """Trains a process reward model on labelled steps, and tells what it is worth on problems that are held out."""
    check_file(report_file, "--report")
    options = Options(
        epochs=epochs, batch=batch, micro_tokens=micro_tokens, learning_rate=learning_rate, rank=rank, seed=seed
    )
    try:
        if out.exists():
            raise TrainingError(f"{out} exists; name another --out")
        solutions = read_labels(labels)
        if not solutions:
            raise TrainingError(f"{labels}: there are no labelled solutions in it")
        split = split_by_problem(solutions, held_out, seed)
        tuned = load(base, head, options, dtype)
        before = judge(tuned, split.held_out, micro_tokens)
        training = fit(tuned, split.train, targets, max_len, options)
        evaluation = asyncio.run(evaluate(tuned, split.held_out, before, micro_tokens))
    except (RecordError, TrainingError, PRMError, ImportError, OSError) as error:
        raise fail(error) from None
    recipe = read_recipe(labels)
    lines = [*described(recipe, solutions), *report(training, split, evaluation)]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    asked = typed(sys.argv[1:])
    notes = {"command": asked, "head": head, "targets": targets, "options": asdict(options), "report": lines}
    save(tuned, out, base, notes | {"recipe": recipe and asdict(recipe)})
    console.print(
        f"the reward model is in {out}: tts-server serve --prm {prm_of(head, out)}", markup=False, soft_wrap=True
    )
    if report_file:
        packages = versions("tts-server", "torch", "transformers", "peft")
        where = f"{machine()}; {packages}; {tuned.dtype} on {tuned.device}; seed {seed}."
        text = ["# A process reward model, trained", "", f"    {asked}", "", where, "", *lines, ""]
        report_file.write_text("\n".join(text))


async def evaluate(tuned: Tuned, held_out: Sequence[LabelledSolution], before: Scores, micro_tokens: int) -> Evaluation:
    """What the model is worth on problems that it was not trained on, against what it scored before."""
    after = judge(tuned, held_out, micro_tokens)
    rows = await best_of_n(held_out, after, tuned.family.aggregation)
    return Evaluation(step_auc(held_out, before), step_auc(held_out, after), rows)


def prm_of(head: HeadKind, directory: Path) -> str:
    """What `--prm` takes for the directory."""
    return f"lora:{directory}" if head == "labels" else str(directory)
