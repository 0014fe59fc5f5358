r"""Any JSONL file with a question and a gold answer, and the reading of every other task's file.

    {"question": "What is 7 * 8?", "answer": "56"}
    {"id": "p2", "problem": "Solve $x^2 = 4$ for $x > 0$.", "solution": "… so $x = \\boxed{2}$.", "level": 1}

The question is the field `question`, `problem` or `prompt`; the gold answer is `gold`, `answer`, `target` or
`solution`, and of a solution its `#### …` or `\boxed{…}`; `id` or `unique_id`, `level` and `subject` may be there.
Blank lines are skipped, and every error names its line.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.tasks.base import Problem, Row, RowError, TaskError, optional_text, text
from strategies.answers import extract, symbolic
from strategies.answers.normal_forms import MAX_LENGTH, parse, symbolic_values

PROMPTS = ("boxed", "steps", "cot8", "plain")
_SOLUTION = ("####", r"\boxed", r"\fbox")


def read(row: Row, number: str) -> Problem:
    """A record of any task as a problem."""
    known = next((name for name in ("id", "unique_id") if row.get(name) is not None), None)
    return Problem(
        id=text(row, known) if known else number,
        question=text(row, "question", "problem", "prompt"),
        gold=gold(text(row, "gold", "answer", "target", "solution")),
        level=optional_text(row, "level"),
        subject=optional_text(row, "subject"),
        solution=optional_text(row, "solution"),
    )


def gold(value: str) -> str:
    """The answer in a gold answer or a gold solution.

    Raises:
        RowError: a solution gives none, or its brackets do not match, or it is longer than any answer.
    """
    found = extract(value) if any(sign in value for sign in _SOLUTION) else value
    if found is None:
        raise RowError(f"the gold solution names no answer: {value[-80:]!r}")
    if len(found) > MAX_LENGTH:
        raise RowError(f"the gold answer has {len(found)} characters; no more than {MAX_LENGTH} can be compared")
    if not _balanced(found):
        raise RowError(f"the gold answer cannot be parsed, its braces do not match: {found!r}")
    return found


def problems(file: Path, read: Callable[[Row, str], Problem], prefix: str = "") -> tuple[Problem, ...]:
    """The problems of a file, in its order; one without an id is called after its place, from 0.

    Raises:
        TaskError: the file cannot be read, or a line is no problem, or there is none.
    """
    return checked(_rows(file), read, prefix, str(file))


def checked(
    rows: Iterable[tuple[str, Row]], read: Callable[[Row, str], Problem], prefix: str, source: str
) -> tuple[Problem, ...]:
    """The problems of records, each with its place as an error tells it.

    Raises:
        TaskError: a record is no problem, or has another's id or a gold answer that cannot be parsed; or there is none.
    """
    found: dict[str, Problem] = {}
    places: dict[str, str] = {}
    for number, (place, row) in enumerate(rows):
        try:
            problem = read(row, f"{prefix}/{number}" if prefix else str(number))
        except RowError as error:
            raise TaskError(f"{place}: {error}") from error
        if problem.id in found:
            raise TaskError(f"{place}: the id {problem.id!r} is taken already by {places[problem.id]}")
        found[problem.id], places[problem.id] = problem, place
    if not found:
        raise TaskError(f"{source}: there are no problems in it")
    unread = _unreadable({problem.gold for problem in found.values()})
    for problem in found.values():
        if problem.gold in unread:
            raise TaskError(f"{places[problem.id]}: the gold answer cannot be parsed: {problem.gold!r}")
    return tuple(found.values())


def _unreadable(golds: Iterable[str]) -> set[str]:
    """Those with an expression that math-verify does not read, or not in time: only their very text would be right."""
    expressions = {answer: [*symbolic_values(parse(answer))] for answer in golds}
    wanted = list(dict.fromkeys(latex for found in expressions.values() for latex in found))

    async def keys() -> list[str | None]:
        return await asyncio.gather(*map(symbolic.key, wanted))

    # In a thread, because the caller's may run an event loop.
    with ThreadPoolExecutor(1) as thread:
        read = dict(zip(wanted, thread.submit(lambda: asyncio.run(keys())).result(), strict=True)) if wanted else {}
    return {answer for answer, found in expressions.items() if any(read[latex] is None for latex in found)}


def _rows(file: Path) -> Iterator[tuple[str, Row]]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise TaskError(f"{file} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        place = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise TaskError(f"{place}: not UTF-8 text ({error.reason})") from error
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{place}: not a line of JSON ({error})") from error
        if not isinstance(row, dict):
            raise TaskError(f"{place}: a line must be a JSON object, not {type(row).__name__}")
        yield place, row


def _balanced(answer: str) -> bool:
    r"""Whether every brace that is no `\{` has its partner."""
    depth = 0
    for brace in answer.replace(r"\\", "").replace(r"\{", "").replace(r"\}", ""):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0
