"""What imports what, what `import tts_server` costs, and that the built wheel is whole."""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from wheels import PACKAGES, built, tracked

from strategies import registry

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
ARROWS = {
    "prm": (),
    "strategies": ("prm",),
    "tts_server": ("strategies", "prm"),
    "bench": ("tts_server.client", "strategies", "prm"),
}
# What each room may import of its own package: a room is a folder right below the package, and the files at a package's
# top are one together, which has the package's name.
ROOMS = {
    "prm": "families",
    "prm/backend": "prm families",
    "prm/families": "prm",
    "strategies/core": "",
    "strategies/answers": "core",
    "strategies/record": "core",
    "strategies/sampling": "answers core",
    "strategies/search": "answers core sampling",
    "strategies/allocation": "answers core sampling search",
    "strategies": "allocation answers core sampling search",
    "tts_server": "admission batches cli engines forms middleware observe planning prm_serving routes startup weights",
    "tts_server/admission": "tts_server engines middleware",
    "tts_server/answer": "tts_server admission forms middleware observe planning schema",
    "tts_server/batches": "tts_server admission engines middleware",
    "tts_server/cli": "tts_server client observe startup weights",
    "tts_server/client": "",
    "tts_server/engines": "tts_server forms startup upstream",
    "tts_server/forms": "tts_server",
    "tts_server/middleware": "tts_server admission schema",
    "tts_server/observe": "tts_server admission engines middleware planning prm_serving upstream",
    "tts_server/planning": "tts_server admission engines forms observe schema",
    "tts_server/prm_serving": "tts_server admission engines planning schema upstream weights",
    "tts_server/routes": "tts_server admission answer batches engines middleware observe planning prm_serving schema",
    "tts_server/schema": "tts_server forms",
    "tts_server/startup": "tts_server admission engines observe planning",
    "tts_server/upstream": "tts_server",
    "tts_server/weights": "",
    "bench": "simulation",
    "bench/calibration": "bench reporting rescoring stats stored",
    "bench/grading": "stored tasks",
    "bench/prm_training": "bench grading running stats stored tasks",
    "bench/reporting": "bench rescoring stats stored",
    "bench/rescoring": "bench grading stats stored",
    "bench/running": "grading reporting rescoring stored tasks",
    "bench/simulation": "calibration reporting rescoring stats stored",
    "bench/stats": "",
    "bench/stored": "",
    "bench/studies": "bench calibration rescoring simulation stats stored",
    "bench/tasks": "",
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


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(file: Path) -> str:
    package, *below = file.relative_to(ROOT).parts
    return f"{package}/{below[0]}" if len(below) > 1 else package


def arrows() -> dict[Path, set[Path]]:
    """The files of ours that each file imports."""
    files = {module_of(file): file for file in sources()}
    found = {}
    for file in files.values():
        names = imports(ast.parse(file.read_text()), ".".join(file.relative_to(ROOT).parent.parts))
        targets = {files.get(name) or files.get(name.rpartition(".")[0]) for name in names}
        found[file] = {target for target in targets if target and target != file}
    return found


def circles(arrows: Mapping[T, Collection[T]]) -> list[set[T]]:
    """The largest groups of which each can be reached from each other one."""
    reached = {start: _reached(start, arrows) for start in arrows}
    groups = [{other for other in reached[start] if start in reached.get(other, ())} for start in arrows]
    return [group for place, group in enumerate(groups) if group and group not in groups[:place]]


def _reached(start: T, arrows: Mapping[T, Collection[T]]) -> set[T]:
    seen: set[T] = set()
    stack = [start]
    while stack:
        new = [other for other in arrows.get(stack.pop(), ()) if other not in seen]
        seen.update(new)
        stack += new
    return seen


def test_no_import_goes_against_the_arrows_between_rooms() -> None:
    found = {(room_of(file), room_of(other), module_of(file)) for file, others in arrows().items() for other in others}
    wrong = [
        f"{module} imports of {there}"
        for here, there, module in sorted(found)
        if here != there
        and here.partition("/")[0] == there.partition("/")[0]
        and there.rpartition("/")[2] not in ROOMS.get(here, "").split()
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert [sorted(module_of(file) for file in circle) for circle in circles(arrows())] == []


def test_the_rooms_of_strategies_are_in_no_circle() -> None:
    rooms = {
        room: [f"strategies/{name}" for name in names.split()]
        for room, names in ROOMS.items()
        if room.startswith("strategies")
    }
    assert circles(rooms) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"], "e": []}) == [{"a", "b", "c"}]


def test_each_file_at_the_top_of_strategies_registers_one_strategy() -> None:
    files = [module_of(file) for file in (ROOT / "strategies").glob("*.py")]
    homes = [entry.run.__module__ for entry in registry().values()]
    # The package itself and what it offers to plug-ins hold no strategy.
    expected = set(files) - {"strategies", "strategies.kit"}
    assert sorted(home for home in homes if home.startswith("strategies.")) == sorted(expected)


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
