"""An environment of its own for each peer: what one needs is not to stand in another's way."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path


class Unavailable(Exception):
    """A peer cannot be run here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Packages:
    """What pip installs."""

    whole: tuple[str, ...] = ()
    """With their dependencies."""
    alone: tuple[str, ...] = ()
    """Without them: what a peer declares beyond what its server imports."""


def environment(name: str, packages: Packages, folder: Path | None = None) -> Path:
    """The folder of an environment's commands; it is made on first use, and anew for other packages.

    Args:
        name: of the environment.
        packages: what is in it.
        folder: where environments are kept, the user's cache if not given.

    Raises:
        Unavailable: it cannot be installed.
    """
    home = (folder or user_cache_path("tts-server") / "peers") / name
    commands = home / ("Scripts" if sys.platform == "win32" else "bin")
    stamp, wanted = home / "installed.txt", shlex.join([*packages.whole, "--no-deps", *packages.alone])
    if stamp.exists() and stamp.read_text() == wanted:
        return commands
    print(f"installing {name} …", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(home)])
    pip = [str(commands / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if packages.whole:
        _run([*pip, *packages.whole])
    if packages.alone:
        _run([*pip, "--no-deps", *packages.alone])
    # Last, so that what broke off is taken up again.
    stamp.write_text(wanted)
    return commands


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(said[-1] if said else f"{command[2]} ended with status {done.returncode}")
