"""Our grades and another harness's on the same problems, problem by problem.

    tts-bench compare runs/bon8 runs/lm-eval/…/samples_tts_gsm8k_….jsonl
    tts-bench compare runs/bon8 runs/inspect/….json

Reads the sample log of lm-evaluation-harness (`--log_samples`) and the log of inspect-ai (`--log-format json`). Where
grades differ, either the texts do, because the model was asked or answered otherwise, or the same text is read as
another answer.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.stats.intervals import wilson
from bench.stored.records import Record, RecordError, read_records

TEXT_SHOWN = 60
"""Characters of a text's end that the table shows."""


@dataclass(frozen=True, slots=True)
class LoggedGrade:
    """Another harness's grade of one answer."""

    question: str
    text: str
    answer: str
    """As it read it."""
    correct: bool


@dataclass(frozen=True, slots=True)
class GradePair:
    """One problem, graded by us and by another."""

    record: Record
    theirs: LoggedGrade

    @property
    def text(self) -> str:
        """What was returned to us."""
        sample = None if self.record.chosen is None else self.record.samples[self.record.chosen]
        return (sample.text or "") if sample else ""

    @property
    def differs(self) -> bool:
        return bool(self.record.correct) != self.theirs.correct

    @property
    def cause(self) -> str:
        """Why the grades differ."""
        if self.text.strip() != self.theirs.text.strip():
            return "the texts differ"
        return f"the same text is read as {self.record.answer!r} by us, as {self.theirs.answer!r} by them"


def command(
    run: Annotated[Path, typer.Argument(help="Directory of a run.")],
    log: Annotated[Path, typer.Argument(help="Log of lm-evaluation-harness (JSONL) or of inspect-ai (JSON).")],
    out: Annotated[Path | None, typer.Option(help="Markdown file to write, too.")] = None,
) -> None:
    """Compares a run with a log of another harness, problem by problem."""
    try:
        text = "\n".join(compared(read_records(run), read_log(log)))
    except RecordError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(text)
    if out:
        out.write_text(text + "\n")


def compared(records: Sequence[Record], log: Mapping[str, Sequence[LoggedGrade]]) -> Iterator[str]:
    """Lines of Markdown: accuracies by grader, then every problem whose grades differ.

    Raises:
        RecordError: the two have no problem in common.
    """
    ours = {key(record.question): record for record in records}
    pairs = {
        grader: [GradePair(ours[key(grade.question)], grade) for grade in grades if key(grade.question) in ours]
        for grader, grades in log.items()
    }
    if not all(pairs.values()):
        raise RecordError("the run and the log have no problem in common; they are matched by their questions")
    yield "| grader | problems | ours, % | theirs, % | same text | same grade |"
    yield "|---|---|---|---|---|---|"
    for grader, both in pairs.items():
        same = sum(pair.text.strip() == pair.theirs.text.strip() for pair in both)
        yield (
            f"| {grader} | {len(both)} | {_share([bool(p.record.correct) for p in both])} | "
            f"{_share([p.theirs.correct for p in both])} | {same} | {sum(not p.differs for p in both)} |"
        )
    for grader, both in pairs.items():
        differing = [pair for pair in both if pair.differs]
        if differing:
            yield ""
            yield f"Graded otherwise by {grader}:"
            yield ""
            yield "| problem | gold | ours | theirs | cause | our text ends |"
            yield "|---|---|---|---|---|---|"
            yield from map(_row, differing)


def key(question: str) -> str:
    """By which problems are matched: a question without its spacing."""
    return " ".join(question.split())


def _share(hits: Sequence[bool]) -> str:
    low, high = wilson(sum(hits), len(hits))
    return f"{100 * sum(hits) / len(hits):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _row(pair: GradePair) -> str:
    verdicts = ["right" if correct else "wrong" for correct in (pair.record.correct, pair.theirs.correct)]
    cells = [pair.record.id, pair.record.gold, *verdicts, pair.cause, pair.text.strip()[-TEXT_SHOWN:]]
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def read_log(path: Path) -> dict[str, list[LoggedGrade]]:
    """Each grader's grades: the filters of lm-evaluation-harness, the scorers of inspect-ai.

    Raises:
        RecordError: the file cannot be read, or is no such log.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = (
            error.strerror
            if isinstance(error, OSError)
            else "it is no text; inspect-ai writes one with --log-format json"
        )
        raise RecordError(f"{path}: cannot be read: {why}") from error
    try:
        found = list(_of_lm_eval(path, text) if path.suffix == ".jsonl" else _of_inspect(json.loads(text)))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        raise RecordError(
            f"{path}: is neither a sample log of lm-evaluation-harness nor a JSON log of inspect-ai: "
            f"{type(error).__name__}: {error}"
        ) from error
    grades: dict[str, list[LoggedGrade]] = {}
    for grader, grade in found:
        grades.setdefault(grader, []).append(grade)
    if not grades:
        raise RecordError(f"{path}: there are no samples in it")
    return grades


def _of_lm_eval(path: Path, text: str) -> Iterator[tuple[str, LoggedGrade]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path}:{number}: {error}") from error
        (metric,) = told["metrics"]
        (answer,) = told["filtered_resps"]
        yield told["filter"], LoggedGrade(told["doc"]["question"], told["resps"][0][0], str(answer), told[metric] == 1)


def _of_inspect(log: Mapping[str, Any]) -> Iterator[tuple[str, LoggedGrade]]:
    for sample in log["samples"]:
        text = _said(sample["output"]["choices"][0]["message"]["content"])
        for scorer, score in sample["scores"].items():
            yield scorer, LoggedGrade(sample["input"], text, str(score.get("answer")), score["value"] == "C")


def _said(content: str | Sequence[Mapping[str, Any]]) -> str:
    """A message's text; thoughts and other parts are left out."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")
