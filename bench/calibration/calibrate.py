"""`tts-bench calibrate`: fits the table by which `compute_optimal` decides, from records of runs.

    tts-bench calibrate runs/pool16 runs/beam --out policy.json --report runs/policy

One run holds independent samples, the pool: pilots and votes are drawn from it. The others are of searches on the same
problems. Each arm is chosen on some problems and judged on others.
"""

import hashlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

import strategies
from bench.calibration.difficulty_fit import FOLDS, calibration_error
from bench.calibration.policy_fit import EDGES, Fitted, Origin, fitted, policy_of
from bench.calibration.policy_report import report_of, write_report
from bench.calibration.policy_trial import HeldOut, held_out
from bench.calibration.trials import PILOT, Setting, trials
from bench.failures import fail
from bench.rescoring.estimates import Stored, load
from bench.stats.tables import show, terminal
from bench.stored.manifest import Manifest
from bench.stored.records import RecordError, records_of
from prm import AGGREGATIONS, Aggregation
from strategies.allocation import policy_table as policies
from strategies.allocation.policy_table import Policy, PolicyError


class Calibrated(NamedTuple):
    """A policy, and how it does on problems that it has not seen."""

    policy: Policy
    fitted: Fitted
    held: HeldOut


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR…", help="A pool of samples, and runs of searches.")],
    out: Annotated[Path, typer.Option(help="The policy to write, for `tts-server serve --policy`.")],
    report: Annotated[Path | None, typer.Option(help="Directory of a report: Markdown and pictures.")] = None,
    edges: Annotated[
        str, typer.Option(help="Of P(one sample is right), between bins of difficulty, rising.")
    ] = ",".join(map(str, EDGES)),
    pilot: Annotated[int, typer.Option(min=1, max=64, help="Samples that are drawn of every question.")] = PILOT,
    draws: Annotated[int, typer.Option(min=1, help="Pilots drawn of each problem.")] = 16,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the problems: fitted on the others, judged on each.")] = (
        FOLDS
    ),
    aggregation: Annotated[
        list[str] | None,
        typer.Option(help="last, min, prod or mean of the step scores, in votes; repeatable. Default: as stored."),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Whether to use the reward model, where there are scores.")
    ] = True,
    model: Annotated[str | None, typer.Option(help="The model's name; else as the pool's manifest tells.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the pilots, the folds and the bootstrap.")] = 0,
) -> None:
    """Fits the table by which compute_optimal decides, and says how it does on problems that it has not seen."""
    setting = Setting(pilot, draws, scored=scores, aggregations=_aggregations(aggregation or ()), seed=seed)
    try:
        done = calibrated(list(map(load, runs)), setting, _edges(edges), folds=folds, model=model)
        out.parent.mkdir(parents=True, exist_ok=True)
        policies.write(done.policy, out)
        told = report_of(done.held, done.fitted, runs, seed=seed)
        if report:
            write_report(told, report, shlex.join(["tts-bench", *sys.argv[1:]]))
    except (RecordError, PolicyError, OSError, RuntimeError, ValueError) as error:
        raise fail(error) from None
    console = terminal()
    for title, sheet in told.sheets.items():
        show(console, title, sheet)
    console.print(f"{out}: {len(done.policy.cells)} cells", markup=False, highlight=False, soft_wrap=True)
    console.print(told.conclusion, markup=False, highlight=False, soft_wrap=True)


def calibrated(
    runs: Sequence[Stored],
    setting: Setting,
    edges: Sequence[float] = EDGES,
    *,
    folds: int = FOLDS,
    model: str | None = None,
) -> Calibrated:
    """The policy that runs suggest.

    Args:
        runs: one pool of independent samples, and searches.
        setting: of the pilots.
        edges: between the bins.
        folds: parts of the problems.
        model: its name, where no manifest tells it.

    Raises:
        RecordError: there is not one pool, or a run lacks what is needed.
        RuntimeError: scikit-learn is not installed.
        ValueError: there are too few problems for so many folds.
    """
    pool, searches = sorted_out(runs, setting.pilot)
    for search in searches:
        _refuse_unlike(search, pool)
    made = trials(pool, searches, setting)
    held = held_out(made, edges, folds=folds, seed=setting.seed)
    whole = fitted(made, edges, folds=folds, seed=setting.seed)
    origin = Origin(
        model=_model(pool, model),
        prm=_prm(pool) if any(cell.prm_tokens.mean for menu in whole.cells for _, cell in menu) else None,
        prompt=_prompt(pool),
        source=f"{_source([pool, *searches])}; {setting.draws} pilots a problem, seed {setting.seed}",
        pilot=setting.pilot,
    )
    return Calibrated(policy_of(whole, origin, calibration_error(held.reliability), len(made.ids)), whole, held)


def sorted_out(runs: Sequence[Stored], pilot: int) -> tuple[Stored, list[Stored]]:
    """The one run that is a pool of independent samples, larger than a pilot; and the others.

    Raises:
        RecordError: there is none, or more than one.
    """
    pools = [run for run in runs if not run.dependent and max(len(problem.answers) for problem in run.problems) > pilot]
    if len(pools) != 1:
        named = ", ".join(str(run.path) for run in pools) or "none"
        raise RecordError(
            f"one run is to be a pool, with more than {pilot} independent samples a problem; such are: {named}"
        )
    return pools[0], [run for run in runs if run is not pools[0]]


def _refuse_unlike(search: Stored, pool: Stored) -> None:
    """A policy is of one model, one prompt and one reward model: a search with others says nothing of it."""
    if search.manifest is None or pool.manifest is None:
        return
    own, wanted = _facts(search, search.manifest), _facts(pool, pool.manifest)
    if not strategies.get(search.manifest.settings.strategy or "single").scored:
        del own["reward model"]
    for name, value in own.items():
        if value != wanted[name]:
            raise RecordError(
                f"{search.path}: its {name} is {value or 'none'!r}, the pool's {wanted[name] or 'none'!r}"
            )


def _facts(run: Stored, manifest: Manifest) -> dict[str, str | None]:
    return {"model": manifest.settings.model, "system prompt": _prompt(run), "reward model": _prm(run)}


def _model(pool: Stored, given: str | None) -> str:
    model = given or (pool.manifest.settings.model if pool.manifest else None)
    if not model:
        raise RecordError(f"{pool.path}: no manifest tells the model; name it with --model")
    return model


def _prm(pool: Stored) -> str | None:
    if pool.manifest is None:
        return None
    return pool.manifest.settings.options.get("prm") or pool.manifest.server.prm


def _prompt(pool: Stored) -> str:
    """The system prompt: an option of the strategy, or a message of the prompt template."""
    if pool.manifest is None:
        return ""
    settings = pool.manifest.settings
    told = [turn["content"] for turn in settings.messages if turn["role"] == "system"]
    return str(settings.options.get("system_prompt") or "\n".join(told))


def _source(runs: Sequence[Stored]) -> str:
    hashes = [hashlib.sha256(records_of(run.path).read_bytes()).hexdigest()[:16] for run in runs]
    return ", ".join(f"{run.path.resolve().name} (SHA-256 {digest}…)" for run, digest in zip(runs, hashes, strict=True))


def _edges(given: str) -> list[float]:
    try:
        edges = [float(part) for part in given.split(",")]
    except ValueError:
        edges = []
    if not edges or edges != sorted(set(edges)) or not 0 < edges[0] <= edges[-1] < 1:
        raise typer.BadParameter(
            f"rising numbers between 0 and 1, separated by commas; got {given!r}", param_hint="--edges"
        )
    return edges


def _aggregations(given: Sequence[str]) -> list[Aggregation]:
    for value in given:
        if value not in AGGREGATIONS:
            raise typer.BadParameter(f"one of {', '.join(AGGREGATIONS)}, got {value!r}", param_hint="--aggregation")
    return [value for value in AGGREGATIONS if value in given]
