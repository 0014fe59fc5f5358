"""Process labels on the disk: one line a solution in a directory's records, and the recipe that they came from.

Knows neither how labels are made (`bench.prm_training.rollouts`) nor what is trained on them
(`bench.prm_training.train`).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from bench.stored.records import Record, RecordError, records_of, told, write

log = logging.getLogger(__name__)

RECIPE = "recipe.json"

Method = Literal["shepherd", "omega"]
"""Roll out from behind every step (Math-Shepherd, 2312.08935), or search the first error in halves (OmegaPRM's binary
search, 2406.06592)."""
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class LabelledSolution(Record):
    """One sampled solution with a label a step; `id` is the problem's with the solution's number behind it.

    A label says whether the solution can still be brought to the gold answer behind this step: 1, 0, or None where
    nothing tells, which is so of a last step that the token limit cut.
    """

    problem: str = ""
    """Id of the problem."""
    number: int = 0
    """Which of the problem's solutions, in the order of sampling."""
    steps: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()
    values: tuple[float | None, ...] = ()
    """The share of rollouts from behind the step that reached the gold answer; of a complete solution's last step, 1
    or 0 as its answer is right. None where the label was told without rollouts."""
    rollouts: tuple[int, ...] = ()
    """How many were drawn from behind each step."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides the labels: only runs in which all of this is equal share a directory."""

    task: str
    split: str
    data: str
    """File or hub name."""
    data_sha256: str
    prompt_text: str
    """The messages that the prompt makes of the question `{question}`, as JSON."""
    model: str
    method: Method
    solutions: int
    rollouts: int
    temperature: float
    max_tokens: int
    seed: int


_SOLUTION = TypeAdapter(LabelledSolution)
_RECIPE = TypeAdapter(Recipe)


def solution_id(problem: str, number: int) -> str:
    return f"{problem}#{number}"


def read_labels(path: Path) -> list[LabelledSolution]:
    """All labelled solutions of a run's directory or of its file, in the file's order.

    A last line that a crash has torn is left out, and logged.

    Raises:
        RecordError: the file cannot be read, or has a line that is no labelled solution, or the same one twice.
    """
    file = records_of(path)
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error.strerror}") from error
    found: dict[str, LabelledSolution] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            solution = _SOLUTION.validate_json(line)
        except ValidationError as error:
            if number == len(lines):
                log.warning("%s:%d: the last line is torn and left out", file, number)
                continue
            raise RecordError(f"{file}:{number}: {told(error)}") from None
        _check(solution, f"{file}:{number}")
        if solution.id in found:
            raise RecordError(f"{file}:{number}: the solution {solution.id!r} is there twice")
        found[solution.id] = solution
    return list(found.values())


def _check(solution: LabelledSolution, place: str) -> None:
    lengths = {len(part) for part in (solution.steps, solution.labels, solution.values, solution.rollouts)}
    if len(lengths) != 1:
        raise RecordError(f"{place}: steps, labels, values and rollouts must be equally many")
    if not solution.problem or not solution.samples or solution.correct is None:
        raise RecordError(f"{place}: problem, samples and correct are required")
    if any(label not in (None, 0, 1) for label in solution.labels):
        raise RecordError(f"{place}: a label is 0, 1 or null, got {list(solution.labels)}")
    if any(value is not None and not 0 <= value <= 1 for value in solution.values):
        raise RecordError(f"{place}: a value is in [0, 1] or null, got {list(solution.values)}")


def read_recipe(directory: Path) -> Recipe | None:
    """How a directory's labels came about; None where nothing tells.

    Raises:
        RecordError: it cannot be read, or is no recipe.
    """
    file = directory / RECIPE
    try:
        return _RECIPE.validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(f"{file}: {told(error)}") from None


def settle(directory: Path, recipe: Recipe, *, resume: bool) -> list[LabelledSolution]:
    """What a run finds in its directory, whose recipe is then this one.

    Raises:
        RecordError: there are labels and they are not to be gone on with, or they are of another recipe.
    """
    before = read_recipe(directory)
    if before is None:
        if records_of(directory).exists():
            raise RecordError(f"{directory}: holds records without a {RECIPE}; name another directory")
        _write_recipe(directory, recipe)
        return []
    if not resume:
        raise RecordError(f"{directory}: holds labels already; go on with --resume, or name another directory")
    if differing := _differing(before, recipe):
        raise RecordError(f"{directory}: its labels came about otherwise: {'; '.join(differing)}")
    return read_labels(directory) if records_of(directory).exists() else []


def _differing(before: Recipe, now: Recipe) -> Sequence[str]:
    old, new = asdict(before), asdict(now)
    return [f"{name} was {old[name]!r}, not {new[name]!r}" for name in old if old[name] != new[name]]


def _write_recipe(directory: Path, recipe: Recipe) -> None:
    file = directory / RECIPE
    new = file.with_suffix(".new")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with new.open("wb", buffering=0) as sink:
            write(sink, json.dumps(asdict(recipe), indent=2).encode() + b"\n")
        new.replace(file)
    except OSError as error:
        raise RecordError(f"{file}: cannot be written: {error.strerror}") from error
