"""What imports what, what `import tts_server` costs, and that the built wheel is whole."""

import ast
import re
import subprocess
import sys
import zipfile
from collections import Counter
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
# At the top of these packages each file is a room of its own: some put everything together, others are the ground.
APART = ("prm", "tts_server")
# What each room may import of its own package: a room is a folder right below the package, or a file at the top of a
# package in APART. Elsewhere the files at a package's top are one room, which has the package's name.
ROOMS = {
    "prm/__init__": "aggregate base fake families judge steps",
    "prm/aggregate": "",
    "prm/backend": "base families",
    "prm/base": "aggregate",
    "prm/fake": "aggregate base",
    "prm/families": "aggregate base steps",
    "prm/generative": "aggregate base families",
    "prm/judge": "aggregate base steps",
    "prm/steps": "",
    "strategies/core": "",
    "strategies/answers": "core",
    "strategies/record": "core",
    "strategies/sampling": "answers core",
    "strategies/search": "answers core sampling",
    "strategies/allocation": "answers core sampling search",
    "strategies": "allocation answers core sampling search",
    "tts_server/__init__": "",
    "tts_server/__main__": "cli",
    "tts_server/admission": "config errors",
    "tts_server/answer": "admission app_state errors forms logs middleware planning request_state schema",
    "tts_server/app": (
        "__init__ admission app_state batches config engines errors forms middleware observe planning "
        "prm_serving raw_output routes weights"
    ),
    "tts_server/app_state": "admission batches observe planning",
    "tts_server/batches": "admission config engines errors request_state",
    "tts_server/cli": "app app_state client config errors logs observe raw_output server startup weights",
    "tts_server/client": "",
    "tts_server/config": "",
    "tts_server/engines": "errors forms raw_output upstream",
    "tts_server/errors": "",
    "tts_server/forms": "errors",
    "tts_server/logs": "request_state trace_place",
    "tts_server/middleware": "admission config errors logs observe request_state schema",
    "tts_server/observe": (
        "__init__ admission config engines errors logs planning prm_serving request_state schema trace_place upstream"
    ),
    "tts_server/planning": "admission config engines errors forms schema",
    "tts_server/prm_serving": "admission config engines errors planning schema upstream weights",
    "tts_server/raw_output": "",
    "tts_server/request_state": "admission planning",
    "tts_server/routes": (
        "__init__ admission answer app_state batches engines errors middleware observe planning prm_serving "
        "request_state schema"
    ),
    "tts_server/schema": "config errors forms",
    "tts_server/server": "app_state config engines middleware planning startup",
    "tts_server/startup": "admission app_state config engines observe planning",
    "tts_server/trace_place": "",
    "tts_server/upstream": "errors trace_place",
    "tts_server/weights": "",
    "bench": "",
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
    if len(below) > 1:
        return f"{package}/{below[0]}"
    return f"{package}/{file.stem}" if package in APART else package


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


@pytest.mark.parametrize("package", ["bench", "prm", "strategies", "tts_server"])
def test_the_rooms_of_a_package_are_in_no_circle(package: str) -> None:
    rooms = {
        room: [f"{package}/{name}" for name in names.split()]
        for room, names in ROOMS.items()
        if room.partition("/")[0] == package
    }
    assert circles(rooms) == []


def test_what_is_installed_of_bench_names_no_study() -> None:
    """The studies are in a checkout alone; they may use the rest, and nothing uses them."""
    installed = [file for file in (ROOT / "bench").rglob("*.py") if room_of(file) != "bench/studies"]
    assert [module_of(file) for file in installed if "bench.studies" in file.read_text()] == []


def test_no_class_of_bench_has_the_name_of_another() -> None:
    files = [file for file in (ROOT / "bench").rglob("*.py") if room_of(file) != "bench/studies"]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


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
    # Results belong to a commit and its machine, and studies to a checkout, not to what is installed.
    left = ("bench/results/", "bench/studies/")
    shipped = [name for name in tracked(*PACKAGES) if not name.startswith(left)]
    assert [name for name in shipped if name not in held] == []
    assert [name for name in held if name.startswith(left)] == []
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
