"""OpenTelemetry's own variables turn spans on and say where they go; without them it is not even imported."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from patience import NEVER_S
from served import served
from serving import ask, body, serving

from tts_server.config import ConfigError
from tts_server.engines.fake import FakeEngine
from tts_server.observe.otel.environment import from_environment, wanted

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "x"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_spans_are_wanted_where_the_variables_say_where_to(environment: dict[str, str], names: list[str]) -> None:
    assert wanted(environment) == names


def test_nothing_of_it_is_imported_while_it_is_off() -> None:
    code = (
        "import asyncio, sys; sys.path.insert(0, 'tests/support')\n"
        "import tts_server.cli.main\n"
        "from serving import ask, serving\n"
        "from tts_server.observe.otel.environment import from_environment\n"
        "async def main():\n"
        "    async with serving(tracing=from_environment()) as client:\n"
        "        (await ask(client)).raise_for_status()\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, str, ExportTraceServiceRequest]]]]:
    """The URL of a stand-in for an OpenTelemetry collector, and what came: path, key, spans."""
    came: list[tuple[str, str, ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path, self.headers["x-key"], ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the standard library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_go_to_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "reasoning")

        async def main() -> None:
            tracing = from_environment()
            assert tracing
            async with serving(FakeEngine(), tracing=tracing) as client:
                (await ask(client)).raise_for_status()
            await tracing.close()

        asyncio.run(main())
        assert {(path, key) for path, key, _ in came} == {("/v1/traces", "secret")}
        parts = [part for _, _, sent in came for part in sent.resource_spans]
        spans: list[Span] = [span for part in parts for scope in part.scope_spans for span in scope.spans]
        assert {span.name for span in spans} == {"POST /v1/chat/completions", "search single", "generate"}
        assert len({span.trace_id for span in spans}) == 1
        about = {pair.key: pair.value.string_value for part in parts for pair in part.resource.attributes}
        assert about["service.name"] == "reasoning"


def test_a_server_sends_its_last_spans_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        with served("--engine", "fake", "--prm", "none") as (server, process):
            httpx.post(f"{server}/v1/chat/completions", json=body(), timeout=NEVER_S).raise_for_status()
            assert came == []
        assert process.returncode == 0
        names = [s.name for _, _, sent in came for p in sent.resource_spans for c in p.scope_spans for s in c.spans]
        assert sorted(names) == ["POST /v1/chat/completions", "generate", "search single"]


def test_a_collector_that_is_gone_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, _):
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")

    async def main() -> None:
        tracing = from_environment()
        assert tracing
        async with serving(FakeEngine(), tracing=tracing) as client:
            (await ask(client)).raise_for_status()
        async with asyncio.timeout(NEVER_S):
            await tracing.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: the exporter 'zipkin' is not installed; there is: ",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is none of http/protobuf, grpc",
        ),
    ],
)
def test_an_exporter_that_is_not_there_is_named(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said):
        from_environment()


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[otel\]', or turn tracing off with OTEL_SDK_DIS"):
        from_environment()
