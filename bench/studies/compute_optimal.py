"""Does a fitted policy find what is best, and what is it worth? In the toy world, where that is known, and on records.

In the toy world a vote and the choice of a reward model reach what closed forms say, so the best arm of each difficulty
is known. A policy is fitted on some questions and judged on others, offline and by the strategy itself.

    python -m bench.studies.compute_optimal --runs bench/results/gsm8k/pool16 --out bench/results/compute_optimal.md
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.calibration.calibrate import calibrated
from bench.calibration.policy_report import report_of
from bench.calibration.trials import Setting
from bench.rescoring.estimates import load
from bench.simulation.toy_policy import HIDDEN, LIMIT, PLAIN, QUALITY, Kinds, ToyFindings, prove
from bench.stats.tables import Sheet, count, percent
from bench.stored.machine import machine, versions
from bench.stored.records import RecordError

WORLDS: dict[str, tuple[str, Kinds]] = {
    "plain": ("where the length of its solutions tells a question's difficulty", PLAIN),
    "hidden": ("where only votes and scores tell it", HIDDEN),
}


def main(
    out: Annotated[Path, typer.Option(help="Markdown file to write.")],
    runs: Annotated[list[Path] | None, typer.Option(help="Real records: a pool, and searches; repeatable.")] = None,
    worlds: Annotated[
        list[str] | None, typer.Option("--world", help="Toy worlds, plain or hidden; both by default.")
    ] = None,
    questions: Annotated[int, typer.Option(min=30, help="Questions of the toy world to judge on.")] = 1000,
    calibration: Annotated[int, typer.Option(min=30, help="Others, to fit the policy on.")] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Proves the policy in the toy world, and reports how one does on real records."""
    if unknown := [name for name in worlds or () if name not in WORLDS]:
        raise typer.BadParameter(f"one of {', '.join(WORLDS)}, got {unknown[0]!r}", param_hint="--world")
    command = shlex.join(["python", "-m", "bench.studies.compute_optimal", *sys.argv[1:]])
    lines = ["# Compute-optimal allocation", "", f"    {command}", ""]
    lines += [f"{machine()}; {versions('tts-server', 'scikit-learn', 'numpy')}; seed {seed}."]
    for name in worlds or WORLDS:
        title, kinds = WORLDS[name]
        lines += ["", f"## In the toy world, {title}", "", *toy(prove(kinds, calibration, questions, seed))]
    for scored in (False, True) if runs else ():
        try:
            lines += ["", *real(runs or [], scored, seed)]
        except RecordError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
    out.write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


def toy(found: ToyFindings) -> list[str]:
    """The section on the toy world."""
    text = [
        f"{found.calibration} questions to fit on, {found.questions} others to judge on, a third of each difficulty; "
        f"reward model of quality {QUALITY:g}. All tokens count, those of the pilot and of the reward model too.",
        "",
        f"- Expected calibration error on the questions to judge on: {100 * found.ece:.1f} points.",
        f"- With up to {LIMIT:,} tokens a question the policy's regret against an oracle that knows each question's "
        f"difficulty and takes the arm that is best by the closed forms: {100 * found.regret.mean:.2f} points "
        f"({100 * found.regret.low:.2f} to {100 * found.regret.high:.2f}), which is "
        f"{100 * found.regret.mean / found.gap:.1f} % of the {100 * found.gap:.1f} between the worst and the best arm "
        "that is the same for all.",
        f"- The strategy itself on the same questions: {percent(found.live.accuracy)} % with "
        f"{found.live.tokens:,.0f} tokens a question; regret {100 * found.live_regret.mean:.2f} points "
        f"({100 * found.live_regret.low:.2f} to {100 * found.live_regret.high:.2f}).",
        "",
        "### The best arm of each difficulty",
        "",
    ]
    heads = ("difficulty", "right samples, %", "best by the closed forms", "%", "the policy's choice in its bin", "%")
    lines = [
        [
            best.difficulty,
            percent(best.p),
            best.arm.label,
            percent(best.accuracy),
            best.chosen.label,
            percent(best.of_chosen),
        ]
        for best in found.best
    ]
    text += [*Sheet(heads, lines, 1).markdown(), "", "### A budget for all questions", ""]
    heads = ("tokens a question", "policy, %", "spent", "arm, all its sizes mixed", "%", "difference")
    lines = [
        [count(row.tokens), percent(row.policy), count(row.spent), row.rival, percent(row.alone), str(row.gap)]
        for row in found.shared
    ]
    note = "An arm takes exactly as many tokens as the policy may, by two of its sizes on shares of the questions."
    return [*text, *Sheet(heads, lines, 1).markdown(), "", note]


def real(runs: Sequence[Path], scored: bool, seed: int) -> list[str]:
    """The section on records: a policy of one half of the problems, judged on the other, and the other way round."""
    done = calibrated([load(run) for run in runs], Setting(scored=scored, seed=seed), folds=2)
    report = report_of(done.held, done.fitted, runs, seed=seed)
    text = [f"## On records, {'with' if scored else 'without'} the reward model", ""]
    text += [f"- {note}" for note in report.notes]
    for title, sheet in report.sheets.items():
        text += ["", f"### {title}", "", *sheet.markdown()]
    return text


if __name__ == "__main__":
    typer.run(main)
