"""Problems from the Hugging Face hub, through `datasets`. Fails within seconds where no hub can be reached."""

import os
from collections.abc import Iterator

import httpx

from bench.tasks import jsonl
from bench.tasks.base import Problem, Row, Source, TaskError

_REACH_S = 5.0
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
    try:
        from datasets import load_dataset  # noqa: PLC0415
    except ImportError as error:
        raise TaskError(f"{source.name} comes through `datasets`: pip install 'tts-server[bench]'") from error
    name = source.hub_splits.get(split, split)
    try:
        rows = load_dataset(source.hub, source.config, split=name)
    except Exception as error:
        # `datasets` raises what its dozen of parts raise.
        raise TaskError(
            f"hub:{source.hub}, split {name!r}, cannot be read: {error}. {_instead(source, split)}"
        ) from error
    for number, row in enumerate(rows):
        yield f"hub:{source.hub} {name}[{number}]", row


def _must_reach(source: Source, split: str) -> None:
    """Asks the hub with a time limit of our own, because its client retries for minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")
    try:
        httpx.head(f"{endpoint}/api/datasets/{source.hub}", timeout=_REACH_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TaskError(f"the hub {endpoint} cannot be reached ({error!r}). {_instead(source, split)}") from error


def _instead(source: Source, split: str) -> str:
    return (
        f"To do without it, put {source.files[split]} into a directory and name that one with TTS_BENCH_DATA, give the "
        "path of a JSONL file as the task, or set HF_HUB_OFFLINE=1 if the hub's cache has the data set"
    )
