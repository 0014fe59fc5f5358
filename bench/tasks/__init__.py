"""Tasks: the problems of a benchmark, their gold answers, and the prompts they are asked with. Knows no server.

A task is one file of this package with one `Source`. Packages outside name theirs by the entry point group
`tts_server.tasks`. Any JSONL file with a question and a gold answer is a task too.
"""

import logging
import os
import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from bench.tasks import hub, jsonl
from bench.tasks.base import (
    Problem,
    Row,
    RowError,
    Source,
    Task,
    TaskError,
    fingerprint,
    numeric_gold,
    optional_text,
    text,
)
from bench.tasks.prompts import PROMPTS, PromptTemplate, prompt

__all__ = [
    "PROMPTS",
    "Problem",
    "PromptTemplate",
    "Row",
    "RowError",
    "Source",
    "Task",
    "TaskError",
    "load",
    "numeric_gold",
    "optional_text",
    "prompt",
    "registry",
    "text",
]

log = logging.getLogger(__name__)

DATA_VARIABLE = "TTS_BENCH_DATA"
"""The environment variable that names the data directory, if the caller names none."""


@cache
def registry() -> dict[str, Source]:
    """Every named task, sorted; one of this package keeps its name before one of another package."""
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    sources = [source for module in modules for source in vars(module).values() if isinstance(source, Source)]
    named = {source.name: source for source in [*_plugins(), *sources]}
    return dict(sorted(named.items()))


def _plugins() -> Iterator[Source]:
    for point in entry_points(group="tts_server.tasks"):
        try:
            source = point.load()
        except (Exception, SystemExit) as error:
            log.warning("tasks: %s is left out: %s does not load: %s", point.name, point.value, error)
            continue
        if isinstance(source, Source):
            yield source
        else:
            log.warning("tasks: %s is left out: %s is no Source", point.name, point.value)


def load(
    name_or_path: str, *, data: Path | None = None, split: str | None = None, limit: int | None = None, offset: int = 0
) -> Task:
    """The problems of a task.

    They come from the file, if a path is given; else from the task's file in the directory `data`; else, if none is
    given, from the file in the directory that `TTS_BENCH_DATA` names, if it is there; else from the hub.

    Args:
        name_or_path: a task's name, or a JSONL file.
        data: the data directory.
        split: which part of the data set; by default the one results are reported on.
        limit: how many problems; None is all.
        offset: how many to leave out before the first.

    Raises:
        TaskError: there is no such task, split, file or data set; a record has the wrong shape (named by file and
            line) or an id twice; there are no problems.
    """
    if limit is not None and limit < 1:
        raise TaskError(f"limit must be at least 1, not {limit}")
    if offset < 0:
        raise TaskError(f"offset must be at least 0, not {offset}")
    source = registry().get(name_or_path)
    if source is None:
        return _part(_of_file(name_or_path, split), offset, limit)
    return _part(_of_source(source, data, split or source.splits[0]), offset, limit)


def _of_file(path: str, split: str | None) -> Task:
    file = Path(path)
    if not (file.suffix or os.sep in path) and not file.exists():
        raise TaskError(f"there is no task {path!r}; there are {', '.join(registry())}, and any JSONL file by its path")
    if split is not None:
        raise TaskError(f"a file has no splits; leave out split {split!r}")
    return _task(file.stem, "all", file.name, jsonl.problems(file, jsonl.read), jsonl.PROMPTS)


def _of_source(source: Source, data: Path | None, split: str) -> Task:
    if split not in source.files:
        raise TaskError(f"{source.name} has no split {split!r}; it has {', '.join(source.splits)}")
    if source.hub is None and data is None and not os.environ.get(DATA_VARIABLE):
        raise TaskError(f"{source.name} is on no hub; name the directory of its files by --data or {DATA_VARIABLE}")
    file = (data or Path(os.environ.get(DATA_VARIABLE, ""))) / source.files[split]
    if source.hub is not None and data is None and not (os.environ.get(DATA_VARIABLE) and file.exists()):
        return _task(source.name, split, f"hub:{source.hub}", hub.problems(source, split), source.prompts)
    if not file.exists():
        raise TaskError(f"there is no file {file}, where {source.name} is read from (the data directory is {data})")
    return _task(source.name, split, file.name, jsonl.problems(file, source.read, split), source.prompts)


def _task(name: str, split: str, source: str, problems: tuple[Problem, ...], prompts: tuple[str, ...]) -> Task:
    return Task(name, split, source, problems, len(problems), fingerprint(problems), prompts)


def _part(task: Task, offset: int, limit: int | None) -> Task:
    end = None if limit is None else offset + limit
    problems = task.problems[offset:end]
    if not problems:
        raise TaskError(f"no problem is left: {task.name} has {task.size}, and offset is {offset}")
    return Task(task.name, task.split, task.source, problems, task.size, task.sha256, task.prompts)
