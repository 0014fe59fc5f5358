"""The report of a calibration: how well difficulty is told, what the policy holds, how it does on unseen problems."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.calibration.arms import Arm
from bench.calibration.difficulty_fit import Reliability, calibration_error
from bench.calibration.policy_fit import Bins, Fitted
from bench.calibration.policy_plots import Place, frontier, reliability_diagram
from bench.calibration.policy_trial import (
    Contest,
    HeldOut,
    Saving,
    arms_alone,
    choose_each,
    contests,
    rivals,
    savings,
    unbeaten,
)
from bench.stats.tables import Sheet, band, count, percent
from bench.stored.machine import machine, versions
from strategies.allocation.policy_table import Cell

BINS = ("hard", "medium", "easy")


class PolicyReport(NamedTuple):
    """What is printed and written."""

    conclusion: str
    sheets: Mapping[str, Sheet]
    notes: Sequence[str]
    pictures: Mapping[str, bytes]
    """PNG by the name of its file."""

    def markdown(self, command: str) -> str:
        lines = ["# Calibration of compute_optimal", "", f"    {command}", ""]
        lines += [f"**{self.conclusion}**", ""]
        lines += [f"{machine()}; {versions('tts-server', 'scikit-learn', 'numpy')}.", ""]
        lines += [f"- {note}" for note in self.notes]
        for title, sheet in self.sheets.items():
            lines += ["", f"## {title}", "", *sheet.markdown()]
        for name in self.pictures:
            lines += ["", f"![{name.removesuffix('.png')}]({name})"]
        return "\n".join([*lines, ""])


def report_of(held: HeldOut, fitted: Fitted, runs: Sequence[Path], *, seed: int = 0) -> PolicyReport:
    """All of it."""
    found = contests(held, seed=seed)
    best = rivals(held, found)
    known = {contest.arm: contest for contest in contests(held, oracle=True, seed=seed)}
    groups = held.reliability
    problems, draws = held.trials.ability.shape
    notes = [
        f"{problems} problems of {', '.join(map(str, runs))}; {draws} pilots each, seed {seed}.",
        f"Expected calibration error of P(one sample is right) on problems that the model had not seen: "
        f"{100 * calibration_error(groups):.1f} points; {_correlation(held):.2f} is its correlation with what was so.",
        f"{percent(float((held.bins == held.oracle_bins).mean()))} % of the pilots are seen in the bin that the whole "
        "pool of samples puts their problem in.",
        agreed_note(held),
        "Tokens are those of the policy and of the reward model together, pilots included. On unseen problems means: "
        f"by policies fitted on the other parts of {len(held.policies)}. Differences in percentage points, with the "
        "95 % of a paired bootstrap over problems.",
    ]
    sheets = {
        "Difficulty on unseen problems": reliability_sheet(groups),
        "The policy": policy_sheet(fitted),
        "Arms at each difficulty": difficulty_sheet(held),
        "On unseen problems, a budget for all": contest_sheet(held, best, known),
        "On unseen problems, tokens for equal accuracy": savings_sheet(held, savings(held, best)),
        "On unseen problems, a budget for each question": each_sheet(held, best),
    }
    pictures = {"reliability.png": reliability_diagram(groups), "frontier.png": _frontier(held, found)}
    return PolicyReport(conclusion(held, best), sheets, notes, pictures)


def conclusion(held: HeldOut, found: Sequence[Contest]) -> str:
    """Whether the policy is worth serving: against arms alone with as many tokens, on problems that it has not seen.

    Args:
        held: what it was judged on.
        found: its contests with the arms that no other beats.
    """
    if not found:
        return "This policy's pilots cost more than any arm alone that no other beats: do not serve it."
    worst = min(found, key=lambda contest: contest.gap.high)
    best = max(found, key=lambda contest: contest.gap.low)
    if worst.gap.high < 0:
        return f"This policy is worse than {_arm(held, worst)}: do not serve it. {_measured(worst)}"
    if best.gap.low > 0:
        return f"This policy is better than {_arm(held, best)}, and worse than no arm: serve it. {_measured(best)}"
    near = max(found, key=lambda contest: contest.alone.accuracy)
    told = "is not shown to be better or worse than"
    return f"This policy {told} {_arm(held, near)}: nothing speaks for serving it. {_measured(near)}"


def _arm(held: HeldOut, contest: Contest) -> str:
    return held.trials.arms[contest.arm].label


def _measured(contest: Contest) -> str:
    return (
        f"With as many tokens, {count(contest.alone.tokens)} a question, its accuracy differs by {contest.gap} points."
    )


def write_report(report: PolicyReport, directory: Path, command: str) -> None:
    """Markdown and its pictures.

    Raises:
        OSError: they cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "calibration.md").write_text(report.markdown(command))
    for name, picture in report.pictures.items():
        (directory / name).write_bytes(picture)


def bin_name(number: int, edges: Sequence[float]) -> str:
    name = f"{BINS[number]}, " if len(edges) == 2 else ""
    ends = [0.0, *edges, 1.0]
    return f"{name}{100 * ends[number]:g} to {100 * ends[number + 1]:g} %"


def reliability_sheet(groups: Sequence[Reliability]) -> Sheet:
    lines = [[percent(group.predicted), percent(group.observed), count(group.pilots)] for group in groups]
    return Sheet(("predicted, %", "right, %", "pilots"), lines, 0)


def agreed_note(held: HeldOut) -> str:
    """What comes of pilots that are the answer."""
    agreed = held.trials.agreed
    right = held.trials.after.right[0][agreed]
    told = f"; {percent(float(right.mean()))} % of those are right" if right.size else ""
    return f"{percent(float(agreed.mean()))} % of the pilots agree, and are the answer{told}."


def difficulty_sheet(held: HeldOut) -> Sheet:
    """What each arm alone reaches on the questions of each bin: of oracle bins, and of those that pilots tell."""
    sides = {"oracle": held.oracle_bins, "predicted": held.bins}
    edges = held.policies[0].edges
    places = [(name, bins == number, number) for name, bins in sides.items() for number in range(len(edges) + 1)]
    heads = ["arm alone", *(f"{name} {bin_name(number, edges)}" for name, _, number in places), "tokens a question"]
    shares = ["questions, %", *(percent(float(here.mean())) for _, here, _ in places), ""]
    lines = []
    for alone in arms_alone(held.trials):
        right = held.trials.alone.right[alone.arm]
        reached = [percent(float(right[here].mean())) if here.any() else "" for _, here, _ in places]
        lines.append([held.trials.arms[alone.arm].label, *reached, count(alone.tokens)])
    return Sheet(heads, [shares, *lines])


def policy_sheet(fitted: Fitted) -> Sheet:
    lines = [
        [bin_name(number, fitted.edges), fitted.arms[arm].label, *_figures(cell)]
        for number, cells in enumerate(fitted.cells)
        for arm, cell in cells
    ]
    heads = (
        "P(one sample is right)",
        "arm",
        "accuracy, %",
        "95 %",
        "problems",
        "tokens",
        "p95",
        "PRM tokens",
        "s, p50",
    )
    return Sheet(heads, lines, 2)


def _figures(cell: Cell) -> list[str]:
    return [
        percent(cell.accuracy),
        band(cell.low, cell.high),
        count(cell.problems),
        count(cell.tokens.mean),
        count(cell.tokens.p95),
        count(cell.prm_tokens.mean),
        f"{cell.wall_s.p50:.1f}",
    ]


def contest_sheet(held: HeldOut, found: Sequence[Contest], known: Mapping[int, Contest]) -> Sheet:
    """Against the arms that no other beats; `known` are the contests with oracle bins, by arm.

    With so few tokens as some of them take, there is no policy: it draws its pilots first.
    """
    by_arm = {contest.arm: contest for contest in found}
    lines = []
    for alone in unbeaten(arms_alone(held.trials)):
        line = [held.trials.arms[alone.arm].label, count(alone.tokens), percent(alone.accuracy)]
        if contest := by_arm.get(alone.arm):
            reached = percent(contest.policy.accuracy), str(contest.gap), percent(known[alone.arm].policy.accuracy)
            lines.append([*line, count(contest.policy.tokens), *reached])
        else:
            lines.append([*line, "below its pilots", "", "", ""])
    heads = ("arm alone", "tokens a question", "%", "policy, tokens", "policy, %", "difference", "oracle bins, %")
    return Sheet(heads, lines)


def savings_sheet(held: HeldOut, found: Sequence[Saving]) -> Sheet:
    lines = [
        [
            held.trials.arms[saving.arm].label,
            percent(saving.accuracy),
            count(saving.alone),
            "never" if saving.policy is None else count(saving.policy),
            "" if saving.policy is None else f"{saving.policy / saving.alone:.2f}",
        ]
        for saving in found
    ]
    return Sheet(("arm alone", "%", "tokens a question", "policy, tokens", "ratio"), lines)


def each_sheet(held: HeldOut, found: Sequence[Contest]) -> Sheet:
    """What `compute_optimal` chooses where every request has a budget of its own, of each arm's cost in turn."""
    lines = []
    for contest in found:
        spent = choose_each(held, contest.alone.tokens)
        cheap = [alone.accuracy for alone in arms_alone(held.trials) if alone.tokens <= spent.tokens * (1 + 1e-9)]
        best = percent(max(cheap)) if cheap else "none"
        taken = _taken(held.trials.arms, spent.arms)
        lines.append([taken, count(contest.alone.tokens), count(spent.tokens), percent(spent.accuracy), best])
    heads = ("arms taken", "budget a question", "spent", "%", "best arm alone for no more, %")
    return Sheet(heads, lines)


def _taken(arms: Sequence[Arm], chosen: Bins) -> str:
    places, counts = np.unique(chosen, return_counts=True)
    order = np.argsort(-counts)
    return ", ".join(f"{arms[places[i]].label} {100 * counts[i] / chosen.size:.0f} %" for i in order[:4])


def _correlation(held: HeldOut) -> float:
    told, so = held.probability.ravel(), held.trials.ability.ravel()
    return float(np.corrcoef(told, so)[0, 1]) if told.std() and so.std() else 0.0


def _frontier(held: HeldOut, found: Sequence[Contest]) -> bytes:
    """Each arm alone, and the policy with as many tokens."""
    alone = {held.trials.arms[arm].label: Place(tokens, right) for arm, tokens, right in arms_alone(held.trials)}
    policy = [Place(contest.policy.tokens, contest.policy.accuracy) for contest in found]
    return frontier(alone, policy)
