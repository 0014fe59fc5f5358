"""All strategies in the toy world: accuracy against generated tokens, over budgets, reward models and difficulties.

Writes a picture, a table with intervals, and every cell as CSV and JSON; and says of each known fact of the field
whether it came out. All contestants answer the same questions with the same seeds.

    python -m bench.simulation.simulate --out bench/results
"""

import asyncio
import csv
import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.reporting.plots import draw
from bench.simulation.known_facts import known_facts
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import ToyEngine, World
from bench.stats.intervals import Cell, wilson
from bench.stored.machine import machine, versions
from strategies import Entry, registry
from strategies.core.account import Account
from strategies.core.contracts import Final
from strategies.core.metered import MeteredEngine, MeteredPRM

BUDGETS = tuple(2**k for k in range(9))
QUALITIES = (0.0, 0.2, 0.4, 1.0)
DIFFICULTIES = {"easy": 0.93, "medium": 0.81, "hard": 0.68}
"""Chance of a right step: over five steps 70, 35 and 15 % of samples are right. At 0.63 the wrong answers of a hard
question crowd every vote out, and best-of-N is ahead of the weighted one there."""
SEARCHES = 8
"""Searches at once in one process: enough to overlap, and few enough to fit into memory at the largest budget."""
WRONG = (0.2, 0.16, 0.13, 0.11, 0.1, 0.09, 0.08, 0.06, 0.04, 0.03)
"""On a hard question the likeliest wrong answer is then a little likelier than the right one."""
BLIND_QUESTIONS = 0.3
"""Share of the questions on which a noisy reward model has blind spots, so that there is something to exploit."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A strategy, and its options at a budget of n samples' worth of tokens."""

    strategy: str
    at: Callable[[int], dict[str, Any]]
    scored: bool = True
    """Whether it uses the reward model, so that its quality matters."""
    only: int | None = None
    """The one budget that it has, if it cannot spend more."""


CONTESTANTS = {
    "single": Contestant("single", lambda n: {}, scored=False, only=1),
    "majority": Contestant("self_consistency", lambda n: {"n": n}, scored=False),
    "best_of_n": Contestant("best_of_n", lambda n: {"n": n, "selector": "best"}),
    "weighted": Contestant("best_of_n", lambda n: {"n": n, "selector": "weighted"}),
    "beam_search": Contestant("beam_search", lambda n: {"n": n, "beam_width": min(4, n)}),
    "dvts": Contestant("dvts", lambda n: {"n": n, "beam_width": min(4, n)}),
    "tree_of_thoughts": Contestant(
        "tree_of_thoughts", lambda n: {"breadth": max(1, n // 4), "n_generate": min(4, n), "max_steps": World().depth}
    ),
    "self_refine": Contestant("self_refine", lambda n: {"n": max(1, n // 4), "revisions": min(3, n - 1)}),
}
"""Those whose options are more than `n`; the registry's others with an `n` join by themselves."""


def contestants() -> dict[str, Contestant]:
    """Those of the table that are registered, and every other strategy that has an `n`."""
    named = {contestant.strategy for contestant in CONTESTANTS.values()}
    others = {
        name: Contestant(name, lambda n: {"n": n}, scored=entry.scored)
        for name, entry in registry().items()
        if name not in named and "n" in entry.options.model_fields
    }
    return {label: c for label, c in CONTESTANTS.items() if c.strategy in registry()} | others


def absent() -> list[str]:
    """The registered strategies that have no budget to vary here."""
    return sorted(set(registry()) - {contestant.strategy for contestant in contestants().values()})


def options_of(entry: Entry, contestant: Contestant, budget: int) -> dict[str, Any]:
    """The strategy's options at a budget, checked and completed as the server does it."""
    checked = entry.options.model_validate(contestant.at(budget))
    return {name: getattr(checked, name) for name in entry.options.model_fields}


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """One search."""

    correct: bool
    completion_tokens: int
    prm_tokens: int


async def solve(
    entry: Entry,
    options: Mapping[str, Any],
    world: World,
    prm: ToyPRM | None,
    seed: int,
    account: Account | None = None,
) -> SearchOutcome:
    """Runs one search to its end, metered as the server does it; with its own account, in which no limit is set."""
    account = account or Account()
    metered = MeteredPRM(prm, account) if prm else None
    run = entry.run(world.task(seed), MeteredEngine(ToyEngine(world), account), metered, account, **options)
    final: Final | None = None
    async with aclosing(run) as events:
        async for event in events:
            final = event if isinstance(event, Final) else final
    if final is None:
        raise RuntimeError(f"{entry.name} ended without an answer")
    return SearchOutcome(final.best.answer == world.gold, account.usage.completion_tokens, account.usage.prm_tokens)


@dataclass(frozen=True, slots=True)
class CellJob:
    """One cell to fill."""

    label: str
    difficulty: str
    quality: float | None
    """None where no reward model is used."""
    budget: int
    questions: int

    def run(self) -> Cell:
        contestant = contestants()[self.label]
        entry = registry()[contestant.strategy]
        options = options_of(entry, contestant, self.budget)
        prm = None if self.quality is None else ToyPRM(self.quality, blind_questions=BLIND_QUESTIONS)
        p_step = DIFFICULTIES[self.difficulty]
        places = asyncio.Semaphore(SEARCHES)

        async def answer(seed: int) -> SearchOutcome:
            async with places:
                return await solve(entry, options, World(seed, p_step=p_step, wrong=WRONG), prm, seed)

        async def main() -> list[SearchOutcome]:
            async with asyncio.TaskGroup() as group:
                runs = [group.create_task(answer(seed)) for seed in range(self.questions)]
            return [run.result() for run in runs]

        outcomes = asyncio.run(main())
        return Cell(
            self.label,
            self.difficulty,
            self.quality,
            self.budget,
            tuple(outcome.correct for outcome in outcomes),
            sum(outcome.completion_tokens for outcome in outcomes) / self.questions,
            sum(outcome.prm_tokens for outcome in outcomes) / self.questions,
        )


def named(names: Sequence[str]) -> list[str]:
    """The contestants with these names, or of strategies with these.

    Raises:
        BadParameter: there is none.
    """
    known = contestants()
    for name in names:
        if name not in known and name not in {contestant.strategy for contestant in known.values()}:
            raise typer.BadParameter(f"one of {', '.join(known)}, or a strategy; got {name!r}", param_hint="--only")
    return [label for label, contestant in known.items() if label in names or contestant.strategy in names]


def jobs_of(
    qualities: Sequence[float], budgets: Sequence[int], questions: int, labels: Collection[str] = ()
) -> Iterator[CellJob]:
    """Every cell, the costliest first, so that no process is left with a long one at the end."""
    known = contestants()
    for budget in sorted(budgets, reverse=True):
        for label, contestant in known.items():
            if contestant.only not in (None, budget) or (labels and label not in labels):
                continue
            for difficulty in DIFFICULTIES:
                for quality in qualities if contestant.scored else (None,):
                    yield CellJob(label, difficulty, quality, budget, questions)


def simulate(
    qualities: Sequence[float] = QUALITIES,
    budgets: Sequence[int] = BUDGETS,
    questions: int = 200,
    processes: int = 1,
    labels: Collection[str] = (),
) -> list[Cell]:
    """The cells of all contestants or of those named; one without a reward model has the same one in each quality."""
    jobs = list(jobs_of(qualities, budgets, questions, labels))
    if processes == 1:
        cells = [job.run() for job in jobs]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            cells = list(pool.map(CellJob.run, jobs))
    return [cell for unshared in cells for cell in unshared.shared(qualities)]


def table(cells: Sequence[Cell]) -> Iterator[str]:
    """Accuracy at the smallest, a middle and the largest budget, with Wilson's 95 % intervals."""
    budgets = sorted({cell.budget for cell in cells})
    shown = sorted({budgets[0], budgets[len(budgets) // 2], budgets[-1]})
    heads = [f"{kind} {n}" for n in shown for kind in ("accuracy, %, at", "tokens at")]
    yield f"| difficulty | PRM quality | contestant | {' | '.join(heads)} |"
    yield "|---" * (3 + len(heads)) + "|"
    rows: dict[tuple[str, float | None, str], dict[int, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.difficulty, cell.quality, cell.label), {})[cell.budget] = cell
    order = {name: i for i, name in enumerate([*DIFFICULTIES, *contestants()])}
    for key in sorted(rows, key=lambda key: (order[key[0]], key[1] or 0, order[key[2]])):
        found = [part for n in shown for part in _figures(rows[key].get(n))]
        yield f"| {key[0]} | {key[1]:g} | {key[2]} | {' | '.join(found)} |"


def _figures(cell: Cell | None) -> tuple[str, str]:
    if cell is None:
        return "", ""
    low, high = wilson(sum(cell.hits), len(cell.hits))
    return f"{100 * cell.accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})", f"{cell.completion_tokens:.0f}"


def records(cells: Iterable[Cell]) -> Iterator[dict[str, Any]]:
    """The cells, flat, with Wilson's interval."""
    for cell in cells:
        low, high = wilson(sum(cell.hits), len(cell.hits))
        flat = asdict(cell)
        questions = len(flat.pop("hits"))
        yield {**flat, "questions": questions, "accuracy": cell.accuracy, "low": low, "high": high}


def main(
    out: Annotated[Path, typer.Option(help="Directory for simulate.{md,csv,json,png}.")],
    questions: Annotated[int, typer.Option(min=1, help="Questions of each difficulty.")] = 200,
    top: Annotated[
        int, typer.Option(min=BUDGETS[0], help="The largest budget; powers of two up to it are run.")
    ] = BUDGETS[-1],
    only: Annotated[
        list[str] | None, typer.Option(help="Contestants or strategies to run; all, if none is named.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that fill cells.")] = os.cpu_count() or 1,
) -> None:
    """Writes the picture, the table and the data; prints which of the known facts came out."""
    budgets = [n for n in BUDGETS if n <= top]
    labels = named(only or ())
    out.mkdir(parents=True, exist_ok=True)
    cells = simulate(budgets=budgets, questions=questions, processes=processes, labels=labels)
    rows = list(records(cells))
    facts = known_facts(cells)
    (out / "simulate.json").write_text(json.dumps({"cells": rows, "facts": [asdict(f) for f in facts]}, indent=1))
    with (out / "simulate.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(cells, out / "simulate.png", list(DIFFICULTIES))
    quality = ", ".join(f"{q:g}: {ToyPRM(q).auc:.3f}" for q in QUALITIES)
    said = [f"- **{'confirmed' if fact.holds else 'not confirmed'}**: {fact.claim}. {fact.figures}" for fact in facts]
    print("\n".join(said))
    lines = [
        "# Strategies in the toy world",
        "",
        f"    {shlex.join(['python', '-m', 'bench.simulation.simulate', *sys.argv[1:]])}",
        "",
        f"{machine()}; {versions('tts-server')}. {questions} questions of each difficulty, the same for all. A reward "
        f"model's quality as the chance that it scores a right path above a wrong one (AUC): {quality}. On "
        f"{100 * BLIND_QUESTIONS:.0f} % of the questions a noisy one has blind spots. Without a budget to vary: "
        f"{', '.join(absent()) or 'none'}.",
        "",
        "![accuracy against generated tokens](simulate.png)",
        "",
        "## Known facts",
        "",
        *said,
        "",
        "## Accuracy",
        "",
        *table(cells),
        "",
    ]
    (out / "simulate.md").write_text("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
