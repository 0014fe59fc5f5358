"""schemathesis, unmodified, against a running server: with the server's own `/openapi.json`, and with OpenAI's.

It lives with the other clients in `.venv/clients` (CLIENTS_PYTHON names another interpreter).
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import NEVER_S
from served import served

from prm import FakePRM
from tts_server.app import create_app
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.routes import routes

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("CLIENTS_PYTHON", str(ROOT / ".venv" / "clients" / "bin" / "python"))
OPENAI = ROOT / "tests" / "data" / "openai.json"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
REFUSED = (
    "audio",
    "function_call",
    "functions",
    "modalities",
    "moderation",
    "prediction",
    "tools",
    "tool_choice",
    "web_search_options",
)
"""Of a request at random they would leave nearly nothing that is answered; other tests are theirs."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_SERVER_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        with served("--engine", "fake", "--prm", "fake", "--log-level", "error") as (base, _):
            yield base


def schemathesis(schema: str, folder: Path, *flags: str, checks: list[str]) -> list[Any]:
    """The events of a run that found nothing."""
    if not Path(PYTHON).exists():
        pytest.skip("requirements/install.sh clients, or name an environment's interpreter by CLIENTS_PYTHON")
    report = folder / "events.ndjson"
    fixed = ["--generation-deterministic", "--no-shrink"]
    bounds = ["--request-timeout", "30", "--suppress-health-check", "all", "--warnings", "off", "--no-color"]
    told = ["--report-ndjson-path", str(report), "--continue-on-failure", "--checks", ",".join(checks)]
    run = [str(Path(PYTHON).parent / "schemathesis"), "run", schema, *fixed, *bounds, *told, *flags]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return [json.loads(line) for line in report.read_text().splitlines()]


def statuses(events: Any) -> Iterator[int]:
    """Of every answer in the events."""
    if isinstance(events, dict):
        if isinstance(events.get("status_code"), int):
            yield events["status_code"]
        events = list(events.values())
    if isinstance(events, list):
        for event in events:
            yield from statuses(event)


def labels(events: Any) -> Iterator[str]:
    """Of every operation that the events tell of."""
    if isinstance(events, dict):
        if isinstance(events.get("label"), str):
            yield events["label"]
        events = list(events.values())
    if isinstance(events, list):
        for event in events:
            yield from labels(event)


def operations(spec: Any) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in spec["paths"].items() for method in methods}


def test_every_route_is_in_the_schema() -> None:
    app = create_app(FakeEngine(), [FakePRM()], Settings())
    served = {f"{method} {route.path_format}" for route in routes() for method in (route.methods or set()) - {"HEAD"}}
    assert operations(app.openapi()) == served
    families = ("/v1/chat", "/v1/completions", "/v1/responses", "/v1/files", "/v1/batches", "/v1/traces", "/v1/prm")
    assert all(any(f" {family}" in operation for operation in served) for family in families)


def test_every_answer_is_what_our_own_schema_says(url: str, tmp_path: Path) -> None:
    phases = ["--phases", "coverage,fuzzing", "-n", "8"]
    events = schemathesis(
        f"{url}/openapi.json", tmp_path, *phases, checks=[*CHECKS, "negative_data_rejection", "unsupported_method"]
    )
    assert {200, 400, 404} <= set(statuses(events))
    spec = httpx.get(f"{url}/openapi.json", timeout=NEVER_S).json()
    assert operations(spec) <= set(labels(events))


def test_what_openai_allows_is_answered_as_openai_answers(url: str, tmp_path: Path) -> None:
    schema = tmp_path / "openai.json"
    schema.write_text(json.dumps(answerable(json.loads(OPENAI.read_text()))))
    events = schemathesis(str(schema), tmp_path, "--url", f"{url}/v1", "-n", "40", "--phases", "fuzzing", checks=CHECKS)
    seen = list(statuses(events))
    assert {200, 400} <= set(seen)
    assert seen.count(200) > 10


def answerable(spec: Any) -> Any:
    """The specification with the one model that is served, texts for messages, and its errors declared."""
    schemas = spec["components"]["schemas"]
    for name in ("CreateChatCompletionRequest", "CreateCompletionRequest"):
        for part in [schemas[name], *schemas[name].get("allOf", [])]:
            fields = part.get("properties", {})
            for field in (*REFUSED, "stream", "stream_options"):
                fields.pop(field, None)
            if "model" in fields:
                fields["model"] = {"type": "string", "enum": ["fake", "fake@best_of_n"]}
            if "messages" in fields:
                turn = {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string"}}
                each = {"type": "object", "required": list(turn), "properties": turn, "additionalProperties": False}
                fields["messages"] = {"type": "array", "minItems": 1, "maxItems": 4, "items": each}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}}
    for path in spec["paths"].values():
        path["post"]["responses"]["4XX"] = {"description": "an error", **error}
        path["post"]["responses"]["200"]["description"] = "an answer"
    return spec
