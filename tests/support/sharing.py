"""How workers of pytest-xdist share the tests."""

from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]


class ByFile(LoadScopeScheduling):
    """Gives each worker whole files, so that what a module's fixtures start is started once.

    All files with real engines go to one worker, which runs them one after the other: two engines need the memory and
    the cores of two.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "real" if is_real(nodeid) else _file(nodeid)


def is_real(nodeid: str) -> bool:
    """Whether a test's file has any that are marked `real`."""
    return _names_real(_file(nodeid))


def sendable(report: Any) -> Any:
    """A report whose texts are all UTF-8."""
    match report:
        case str():
            return report.encode(errors="backslashreplace").decode()
        case dict():
            return {key: sendable(value) for key, value in report.items()}
        case list():
            return [sendable(part) for part in report]
        case tuple():
            return tuple(sendable(part) for part in report)
    return report


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@cache
def _names_real(file: str) -> bool:
    return "mark.real" in (ROOT / file).read_text()
