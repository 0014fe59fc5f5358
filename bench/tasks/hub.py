"""Problems from the Hugging Face hub, through `datasets`. Fails within seconds where no hub can be reached."""

import os
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, Source, TaskError

REACH_S = 5.0
"""Seconds in which a hub has to answer at all."""
TIMEOUTS = {"HF_HUB_ETAG_TIMEOUT": "10", "HF_HUB_DOWNLOAD_TIMEOUT": "30"}
"""What the hub's client is told, unless the user told it: seconds for a file's head, and between two pieces of it."""
_ENDPOINT = "https://huggingface.co"


def problems(source: Source, split: str) -> tuple[Problem, ...]:
    """The problems of a task's data set on the hub, or from the hub's cache if `HF_HUB_OFFLINE` is set.

    Raises:
        TaskError: `datasets` is not installed, no hub can be reached, or it does not have the data set; or a record is
            no problem.
    """
    return jsonl.checked(_rows(source, split), source.read, split, f"hub:{source.hub}")


def _rows(source: Source, split: str) -> Iterator[tuple[str, Row]]:
    _must_reach(source, split)
    for variable, seconds in TIMEOUTS.items():
        os.environ.setdefault(variable, seconds)
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise TaskError(f"{source.name} comes through `datasets`: pip install 'tts-server[bench]'") from error
    try:
        rows = datasets.load_dataset(source.hub, source.config, split=split)
    except Exception as error:
        # `datasets` raises what its dozen of parts raise.
        what = f"hub:{source.hub}, split {split!r}, cannot be read: {error}"
        raise TaskError(f"{what}. {_instead(source, split)}") from error
    for number, row in enumerate(rows):
        yield f"hub:{source.hub} {split}[{number}]", row


def _must_reach(source: Source, split: str) -> None:
    """Asks the hub with a time limit of our own, because its client retries for minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")
    failure: list[Exception] = [TimeoutError(f"no answer in {REACH_S:g} s")]

    def ask() -> None:
        try:
            httpx.head(f"{endpoint}/api/datasets/{source.hub}", timeout=REACH_S, follow_redirects=True)
            failure.clear()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure[0] = error

    # A thread, because httpx has no time limit for looking up a name.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(REACH_S)
    if failure:
        why = f"the hub {endpoint} cannot be reached ({failure[0]})"
        raise TaskError(f"{why}. {_instead(source, split)}") from failure[0]


def _instead(source: Source, split: str) -> str:
    return (
        f"To do without it, put {source.files[split]} into a directory and name that one with TTS_BENCH_DATA, give the "
        "path of a JSONL file as the task, or set HF_HUB_OFFLINE=1 if the hub's cache has the data set"
    )
