"""How a run's records came about: enough to repeat it, and to keep different runs apart."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.records import RecordError, told, write

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the records of a run: only runs in which all of this is equal share a directory."""

    task: str
    data: str
    """File or hub name."""
    data_sha256: str
    prompt: str
    """Name of the template."""
    prompt_text: str
    """The messages that the template makes of the question `{question}`, as JSON."""
    model: str
    strategy: str | None = None
    """None: a plain OpenAI request without `tts`, whose choices are the samples."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The request's `tts` object beside `strategy`."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The request's other fields, as OpenAI names them: `temperature`, `max_tokens`, `n`."""
    seed: int | None = None
    stream: bool = False
    concurrency: int = 1
    """Problems asked at once: it decides the latencies."""


@dataclass(frozen=True, slots=True)
class Server:
    """What answered, as it told itself; None is not told."""

    url: str
    name: str | None = None
    """`owned_by` of the model."""
    version: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    model: str | None = None
    """The model behind the alias that was asked."""
    max_model_len: int | None = None
    parameters: int | None = None
    """Weights of the model."""
    prm: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One start of the runner on a directory; a run that was resumed has several."""

    started: str
    """ISO 8601, UTC."""
    command: str
    git_commit: str | None
    """None outside of a checkout; with `+changes` where it was not clean."""
    machine: str
    versions: str
    ended: str | None = None
    """None: it was killed, or goes on."""
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
    """Of the set up to `limit`."""
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
