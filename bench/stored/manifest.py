"""How a run's records came about: enough to repeat it, and to keep different runs apart."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.stored.records import RecordError, told, write

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the records of a run: only runs in which all of this is equal share a directory."""

    task: str
    """Name, or path of a JSONL file."""
    split: str
    source: str
    """Where the problems came from: the name of a file, or `hub:` and the name there."""
    data_sha256: str
    """Of all problems of the split."""
    prompt: str
    """Name of the template."""
    messages: tuple[Mapping[str, str], ...]
    """What the template makes of the question `{question}`."""
    model: str
    strategy: str | None = None
    """None: a plain OpenAI request, whose choices are the samples."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The request's `tts` object beside `strategy`."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The request's other fields, as OpenAI names them: `temperature`, `max_tokens`, `seed`, `n`."""
    stream: bool = False
    concurrency: int = 1
    """Problems asked at once: it decides the times."""
    offset: int = 0
    """Problems left out at the start of the set."""


@dataclass(frozen=True, slots=True)
class Server:
    """What answered, as it told itself; None is not told."""

    name: str | None = None
    """`owned_by` of the model."""
    version: str | None = None
    engine: str | None = None
    model: str | None = None
    """The model behind the name that was asked for."""
    max_model_len: int | None = None
    prm: str | None = None
    """The reward model of requests that name none."""


@dataclass(frozen=True, slots=True)
class Session:
    """One start of the runner on a directory; a run that was resumed has several."""

    started: str
    """ISO 8601, UTC."""
    url: str
    command: str
    git_commit: str | None
    """None outside of a checkout; with `+changes` where it was not clean."""
    machine: str
    """Where the runner ran."""
    versions: str
    ended: str | None = None
    """None: it goes on, or was killed."""
    records: int = 0
    """Written by it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """From which a run can be repeated."""

    settings: Settings
    server: Server
    limit: int | None = None
    """Problems from the start of the set; a resumed run may raise it."""
    problems: int = 0
    """Up to `limit`."""
    parameters: float | None = None
    """Weights of the model, if the user told them."""
    sessions: tuple[Session, ...] = ()


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(directory: Path) -> Manifest | None:
    """How a directory's records came about; None where there is no manifest.

    Raises:
        RecordError: it cannot be read, or is no manifest.
    """
    file = directory / MANIFEST
    try:
        return _MANIFEST.validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(f"{file}: {told(error)}") from None


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replaces the directory's manifest in one go.

    Raises:
        RecordError: it cannot be written; the one before stands.
    """
    file = directory / MANIFEST
    new = file.with_suffix(".new")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with new.open("wb", buffering=0) as sink:
            write(sink, json.dumps(asdict(manifest), indent=2, allow_nan=False).encode() + b"\n")
        new.replace(file)
    except OSError as error:
        raise RecordError(f"{file}: cannot be written: {error.strerror}") from error


def differences(one: Settings | Server, other: Settings | Server) -> list[str]:
    """`field: value here, value there` of each field that is not equal, as their files would have them."""
    here, there = (json.loads(json.dumps(asdict(each))) for each in (one, other))
    return [f"{name}: {here[name]!r}, {there[name]!r}" for name in here if here[name] != there[name]]


def now() -> str:
    """The time, as manifests and records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def git_commit(directory: Path) -> str | None:
    """The checked-out commit, with `+changes` if tracked files differ from it; None outside of a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
