"""The words of the tasks: what a problem is, what a task is, and how a task says where its problems come from."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from strategies.answers.normal_forms import decimal

Row = Mapping[str, Any]
"""One record of a data set, as its file or its hub has it."""


class TaskError(Exception):
    """The task cannot be had: its name, its data, or where the data should come from is wrong."""


class RowError(Exception):
    """One record is not of the task's shape; whoever reads the records says which one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question and the answer that it is graded by."""

    id: str
    """Unique in its task, and the same in every run."""
    question: str
    gold: str
    level: str | None = None
    subject: str | None = None
    solution: str | None = None
    """The gold solution, where the data set has one."""


@dataclass(frozen=True, slots=True)
class Task:
    """The problems of one run."""

    name: str
    split: str
    source: str
    """Where the problems came from: the name of a file, or `hub:` and the name there."""
    problems: tuple[Problem, ...]
    """Those asked for by `offset` and `limit`, in the data set's order."""
    size: int
    """Problems of the whole split."""
    sha256: str
    """Of all problems of the split, whatever the limit; the same from a file and from a hub."""
    prompts: tuple[str, ...]
    """Names of the prompts that suit the task (`bench.tasks.prompts`); the first is the default."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a task's problems come from, and how a record becomes one."""

    name: str
    files: Mapping[str, str]
    """Split, as the hub calls it too → the file's name in a data directory. The first split is the default."""
    hub: str | None
    """The data set's name on the Hugging Face hub; None where its files are in a data directory only."""
    read: Callable[[Row, str], Problem]
    """A record and the id it gets if it has none of its own → the problem. Raises RowError."""
    config: str | None = None
    prompts: tuple[str, ...] = ("boxed", "steps")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.files)


def text(row: Row, *names: str) -> str:
    """The first of these fields that the record has, as text that is not blank.

    Raises:
        RowError: it has none of them, or the field is neither text nor a number.
    """
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        wanted = " or ".join(map(repr, names))
        raise RowError(f"no field {wanted}; its fields are {', '.join(map(repr, row)) or 'none'}")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"field {name!r} must be text or a number, not {type(value).__name__}")
    if not str(value).strip():
        raise RowError(f"field {name!r} is blank")
    return str(value).strip()


def optional_text(row: Row, name: str) -> str | None:
    return text(row, name) if row.get(name) is not None else None


def numeric_gold(value: str) -> str:
    """A gold answer that has to be one number, in plain digits: `70,000` is 70000 and `27.0` is 27.

    Raises:
        RowError: it is not.
    """
    digits = decimal(value)
    if digits is None:
        raise RowError(f"the gold answer {value!r} is not a number")
    whole, _, fraction = digits.partition(".")
    return whole if fraction.strip("0") == "" and whole.strip("-") else digits


def fingerprint(problems: tuple[Problem, ...]) -> str:
    """SHA-256 of the problems, each as one line of JSON; without their solutions, which nobody is asked for."""
    lines = (json.dumps({**asdict(problem), "solution": None}, sort_keys=True) + "\n" for problem in problems)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
