"""Problems from the Hugging Face hub, through `datasets`. Fails within seconds where no hub can be reached."""

import os
import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, TypeVar

import httpx

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, Source, TaskError

T = TypeVar("T")

REACH_S = 5.0
"""Seconds in which a hub has to answer at all."""
LOAD_S = 120.0
"""Seconds in which a whole data set has to be here; the largest has 5 MB."""
TIMEOUTS = {"HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DOWNLOAD_TIMEOUT": "10"}
"""What the hub's client is told, unless the user told it: seconds for a file's head, and between two pieces of it."""
_ENDPOINT = "https://huggingface.co"


def problems(source: Source, split: str) -> tuple[Problem, ...]:
    """The problems of a task's data set on the hub, or from the hub's cache if `HF_HUB_OFFLINE` is set.

    Raises:
        TaskError: `datasets` is not installed, no hub can be reached, or it does not have the data set; or a record is
            no problem.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() not in ("1", "ON", "YES", "TRUE"):
        _reach(source, split)
    rows = _rows(source, split)
    placed = ((f"hub:{source.hub} {split}[{number}]", row) for number, row in enumerate(rows))
    return jsonl.checked(placed, source.read, split, f"hub:{source.hub}")


def _reach(source: Source, split: str) -> None:
    """Asks the hub for an answer, any, because its client retries for minutes."""
    endpoint = os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")
    url = f"{endpoint}/api/datasets/{source.hub}"
    try:
        _within(REACH_S, lambda: httpx.head(url, timeout=REACH_S, follow_redirects=True))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise TaskError(f"the hub {endpoint} cannot be reached ({error}). {_instead(source, split)}") from error


def _rows(source: Source, split: str) -> Iterable[Row]:
    for variable, seconds in TIMEOUTS.items():
        os.environ.setdefault(variable, seconds)
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise TaskError(f"{source.name} comes through `datasets`; in a checkout: pip install '.[bench]'") from error
    try:
        rows: Iterable[Row] = _within(LOAD_S, lambda: datasets.load_dataset(source.hub, source.config, split=split))
    except Exception as error:
        # `datasets` raises what its dozen of parts raise.
        what = f"hub:{source.hub}, split {split!r}, cannot be read: {str(error).rstrip('.')}"
        raise TaskError(f"{what}. {_instead(source, split)}") from error
    return rows


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns or raises, from a thread: neither looking up a name nor the hub's client has a time limit.

    Raises:
        TimeoutError: it did neither in time.
    """
    returned: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            returned.append(call())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return returned[0]


def _instead(source: Source, split: str) -> str:
    return (
        f"To do without it, put {source.files[split]} into a directory and name that one with TTS_BENCH_DATA, give the "
        "path of a JSONL file as the task, or set HF_HUB_OFFLINE=1 if the hub's cache has the data set"
    )
