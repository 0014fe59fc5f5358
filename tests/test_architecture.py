"""What imports what, what `import tts_server` costs, and that the built wheel is whole."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import PACKAGES, built, tracked

ROOT = Path(__file__).parents[1]
ARROWS = {
    "prm": (),
    "strategies": ("prm",),
    "tts_server": ("strategies", "prm"),
    "bench": ("tts_server.client", "strategies", "prm"),
}
HEAVY = ("torch", "vllm", "transformers", "sympy", "math_verify")


def sources() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that the code names, also under TYPE_CHECKING and inside functions, as an absolute name.

    `from a import b` is `a.b`: b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def forbidden(code: str, package: str) -> list[str]:
    """The imports of one file of a package that no arrow allows."""
    home = package.partition(".")[0]
    allowed = (home, *ARROWS[home])
    ours = [name for name in imports(ast.parse(code), package) if name.partition(".")[0] in (*PACKAGES, "tests")]
    return [name for name in ours if not any(name == target or name.startswith(f"{target}.") for target in allowed)]


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_import_goes_against_the_arrows(file: Path) -> None:
    package = ".".join(file.relative_to(ROOT).parent.parts)
    assert forbidden(file.read_text(), package) == []


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("prm", "from strategies.core.contracts import Task"),
        ("strategies", "def f():\n    import tts_server.errors"),
        ("strategies", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tts_server import errors"),
        ("tts_server.routes", "from ..bench import load\nfrom bench import load"),
        ("tts_server", "import bench"),
        ("bench", "from tts_server import app"),
        ("bench", "import tts_server"),
        ("bench", "import tts_server.client_of_another_name"),
        ("tts_server", "from tests.support import serving"),
    ],
)
def test_an_import_against_the_arrows_is_found(package: str, code: str) -> None:
    assert forbidden(code, package) != []


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("bench", "from tts_server.client import Client\nfrom tts_server import client\nimport strategies, prm.steps"),
        ("tts_server.routes", "from .. import plan\nfrom strategies import registry\nfrom prm import PRMError"),
        ("prm", "import torch\nfrom . import steps"),
    ],
)
def test_an_import_along_the_arrows_is_not(package: str, code: str) -> None:
    assert forbidden(code, package) == []


@pytest.mark.parametrize("module", ["prm", "strategies", "tts_server", "tts_server.cli.main", "bench"])
def test_importing_a_package_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_names_a_path_of_one_machine() -> None:
    place = re.compile(rb"""(?<![\w.$}/-])/(?:root|home|Users|work|tmp|opt)/[\w.]""")
    # An image has paths of its own.
    files = [name for name in tracked() if not name.startswith("docker/")]
    found = [name for name in files if place.search((ROOT / name).read_bytes())]
    assert found == []


def test_the_wheel_holds_every_tracked_file_of_the_packages(tmp_path: Path) -> None:
    wheel = built(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    # Results belong to a commit and its machine, not to what is installed.
    shipped = [name for name in tracked(*PACKAGES) if not name.startswith("bench/results/")]
    assert [name for name in shipped if name not in held] == []
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
