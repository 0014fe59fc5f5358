"""What every test runs under: no network beyond this machine, no real engine unless marked `real`, no data at home."""

import importlib.abc
import os
import socket
import sys
from collections.abc import Generator, Iterator
from typing import Any

import pytest


class _NoRealEngine(importlib.abc.MetaPathFinder):
    """Refuses to import vLLM."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name == "vllm":
            raise ImportError("a test that is not marked `real` may not import vllm")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from sharing import ByFile

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Spells half characters out, which tests write and workers cannot send."""
    from sharing import sendable

    return sendable((yield))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where workers share the tests, those that take longest begin first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from sharing import is_real

        items.sort(key=lambda item: not is_real(item.nodeid))


@pytest.fixture(autouse=True, scope="session")
def own_data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What servers keep does not go to the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def no_outside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only loopback can be reached, and only tests marked `real` can import a real engine."""
    if request.node.get_closest_marker("real"):
        yield
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and not host.startswith("127.") and host not in ("::1", "localhost"):
            raise OSError(f"a test may not connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    finder = _NoRealEngine()
    if "vllm" not in sys.modules:
        sys.meta_path.insert(0, finder)
    yield
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
