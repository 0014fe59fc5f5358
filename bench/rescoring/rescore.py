"""Sample once, evaluate often: what selectors would reach with k of the samples that a run, or anyone, has stored.

    tts-bench rescore runs/bon8 --selector weighted --aggregation min --k 1,2,4,8
    tts-bench rescore runs/bon8 --against runs/other --k 8

A file from elsewhere needs a line a problem with `gold` and `samples`, each with `text` or `answer` and, for `best` and
`weighted`, with `score` or `step_scores`.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import typer

from bench.failures import check_file, fail
from bench.rescoring.estimates import RETURNED, Comparison, Question, Row, Stored, compare, load, paired
from bench.rescoring.subsets import DRAWS, MEASURES, Measure
from bench.stats.tables import Sheet, band, count, p_value, percent, show, terminal
from bench.stored.records import RecordError
from prm import AGGREGATIONS, Aggregation

T = TypeVar("T", bound=str)


class Choice(NamedTuple):
    """What is asked of the samples; empty is all that they allow."""

    measures: Sequence[Measure] = ()
    aggregations: Sequence[Aggregation] = ()
    ks: Sequence[int | None] = ()


class Report(NamedTuple):
    """What is printed and written."""

    title: str
    sheet: Sheet
    notes: Sequence[str]
    data: dict[str, Any]

    def markdown(self, command: str) -> str:
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"# {self.title}", "", f"    {command}", "", *self.sheet.markdown(), "", *notes, ""])


def command(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A run's directory, or a JSONL file of samples.")],
    selector: Annotated[
        list[str] | None,
        typer.Option(help="pass, majority, best or weighted; may be repeated. Default: all that the samples allow."),
    ] = None,
    aggregation: Annotated[
        list[str] | None,
        typer.Option(
            help="last, min, prod or mean of the step scores; repeatable. Default: the stored scores, and all four."
        ),
    ] = None,
    k: Annotated[
        str | None, typer.Option(help="Samples, such as 1,2,4,8, or all. Default: the powers of two and all.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="Another run, compared on the problems that both have.")] = None,
    draws: Annotated[
        int, typer.Option(min=100, help="Subsets drawn of a problem's samples where there are more than that.")
    ] = DRAWS,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and of the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A .json or .md file to write.")] = None,
) -> None:
    """Estimates pass@k, majority@k, best@k and weighted@k from stored samples, without a model."""
    choice = Choice(
        _chosen("--selector", selector or (), MEASURES),
        _chosen("--aggregation", aggregation or (), AGGREGATIONS),
        _sizes(k),
    )
    check_file(out, "--out")
    if out and out.suffix not in (".json", ".md"):
        raise typer.BadParameter(f"it ends in .json or .md, got {out.name!r}", param_hint="--out")
    try:
        stored = load(path)
        if against is None:
            report = rescored(stored, choice, draws, seed)
        else:
            report = compared(stored, load(against), choice, draws, seed)
        if out:
            command = shlex.join(["tts-bench", *sys.argv[1:]])
            text = json.dumps(report.data, indent=1) + "\n" if out.suffix == ".json" else report.markdown(command)
            out.write_text(text)
    except (RecordError, OSError, RuntimeError) as error:
        raise fail(error) from None
    console = terminal()
    show(console, report.title, report.sheet)
    for note in report.notes:
        console.print(note, markup=False, highlight=False)


def _chosen(name: str, given: Sequence[str], allowed: Sequence[T]) -> list[T]:
    for value in given:
        if value not in allowed:
            raise typer.BadParameter(f"one of {', '.join(allowed)}, got {value!r}", param_hint=name)
    return [value for value in allowed if value in given]


def _sizes(given: str | None) -> list[int | None]:
    sizes: list[int | None] = []
    for part in given.split(",") if given is not None else ():
        size = part.strip()
        if size != "all" and not (size.isdecimal() and int(size)):
            raise typer.BadParameter(
                f"whole numbers from 1, or all, separated by commas; got {part!r}", param_hint="--k"
            )
        sizes.append(None if size == "all" else int(size))
    return list(dict.fromkeys(sizes))


def rescored(stored: Stored, choice: Choice, draws: int = DRAWS, seed: int = 0) -> Report:
    """The estimates of one run.

    Raises:
        RecordError: the samples do not allow what is asked for.
    """
    rows = stored.rows(stored.questions(*choice), draws=draws, seed=seed)
    lines = [
        [row.question.label, percent(row.mean), _interval(row), _over(row, draws), count(row.completion_tokens)]
        for row in rows
    ]
    sheet = Sheet(("estimate", "%", "95 % of it", "over", "tokens"), lines)
    data = {"path": str(stored.path), "problems": len(stored.problems), "draws": draws, "seed": seed}
    return Report(
        f"Rescored: {stored.path}", sheet, _notes(stored, rows, seed), {**data, "rows": [row_data(row) for row in rows]}
    )


def compared(one: Stored, other: Stored, choice: Choice, draws: int = DRAWS, seed: int = 0) -> Report:
    """The estimates that both runs allow, on the problems that both have, and their differences.

    A run of one sample a problem, or of a search, allows few votes: what it answered is held against the other's.

    Raises:
        RecordError: a run does not allow what is asked for, or they share no problem or no estimate.
    """
    mine, its = paired(one, other)
    questions = _matched(mine, its, choice)
    if not questions:
        raise RecordError(f"{one.path} and {other.path} allow no estimate in common")
    ones, others = zip(*questions, strict=True)
    pairs = compare(mine.rows(ones, draws=draws, seed=seed), its.rows(others, draws=draws, seed=seed), seed=seed)
    lines = [
        [
            _label(pair),
            percent(pair.one.mean),
            percent(pair.other.mean),
            str(pair.difference),
            f"{pair.mcnemar.only_one} : {pair.mcnemar.only_other}" if pair.mcnemar else "",
            p_value(pair.mcnemar.p) if pair.mcnemar else "",
        ]
        for pair in pairs
    ]
    heads = ("estimate", "first, %", "second, %", "difference (95 %)", "only one right", "p")
    filled = [head for place, head in enumerate(heads) if any(line[place] for line in lines)]
    sheet = Sheet(heads, lines).only(filled)
    data = {
        "paths": [str(one.path), str(other.path)],
        "problems": len(mine.problems),
        "draws": draws,
        "seed": seed,
        "rows": [comparison_data(pair) for pair in pairs],
    }
    notes = [
        f"{len(mine.problems)} problems that both have, of {len(one.problems)} and {len(other.problems)}. First: "
        f"{one.path}. Second: {other.path}.",
        "The difference in percentage points, with the 95 % of a bootstrap over problems. p is McNemar's, exact, "
        "where every estimate of a problem is right or wrong, and not adjusted for the number of rows.",
    ]
    if RETURNED in (*ones, *others):
        notes.append("returned: what the run itself answered, where that is no vote over its samples.")
    return Report(f"{one.path} against {other.path}", sheet, notes, data)


def _matched(one: Stored, other: Stored, choice: Choice) -> list[tuple[Question, Question]]:
    """What is estimated of the first and of the second, row by row."""
    if one.single == other.single:
        theirs = other.questions(*choice)
        common = [(question, question) for question in one.questions(*choice) if question in theirs]
        return [(RETURNED, RETURNED), *common] if one.single and not any(choice) else common
    pool, alone = (other, one) if one.single else (one, other)
    pairs = [(question, question if _allows(alone, question) else RETURNED) for question in pool.questions(*choice)]
    return [(its, mine) for mine, its in pairs] if one.single else pairs


def _allows(stored: Stored, question: Question) -> bool:
    try:
        return question in stored.questions(
            [question.measure] if question.measure != "returned" else (),
            [question.aggregation] if question.aggregation else (),
            [question.k],
        )
    except RecordError:
        return False


def _label(pair: Comparison) -> str:
    one, other = pair.one.question.label, pair.other.question.label
    return one if one == other else f"{one} : {other}"


def _interval(row: Row) -> str:
    return band(row.interval.low, row.interval.high)


def _over(row: Row, draws: int) -> str:
    return "all subsets" if row.all_subsets else f"{draws:,} draws"


def _notes(stored: Stored, rows: Sequence[Row], seed: int) -> list[str]:
    sizes = sorted({len(problem.answers) for problem in stored.problems})
    samples = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    methods = {row.interval.method for row in rows}
    ways = {
        "wilson": "Wilson's score where every estimate of a problem is 0 or 1",
        "bootstrap": f"the percentiles of a bootstrap over problems (seed {seed}) where some are between",
    }
    return [
        f"{len(stored.problems)} problems with {samples} samples each. An estimate is the mean over the subsets of k "
        "samples, in any order, of whether the server's vote would return a right answer (pass: whether one is right).",
        f"The 95 % are {'; '.join(way for method, way in ways.items() if method in methods)}.",
    ]


def row_data(row: Row) -> dict[str, Any]:
    """An estimate as JSON."""
    return {
        **asdict(row.question),
        "mean": row.mean,
        **row.interval._asdict(),
        "all_subsets": row.all_subsets,
        "completion_tokens": row.completion_tokens,
    }


def comparison_data(pair: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    return {
        **asdict(pair.one.question),
        "first": row_data(pair.one),
        "second": row_data(pair.other),
        "difference": asdict(pair.difference),
        "mcnemar": pair.mcnemar._asdict() if pair.mcnemar else None,
    }
