"""What docs/security.md promises of every route: keys, nothing fetched or opened for a client, and bounds."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import body, serving
from starlette.routing import Route

from prm import FakePRM
from tts_server.app import create_app
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.middleware.stack import OPEN_PATHS
from tts_server.routes import routes as server_routes

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "PLACE"}}}


def routes() -> list[tuple[str, str]]:
    """Every method of every path, OpenAPI's own pages included."""
    app = create_app(FakeEngine(), [FakePRM()], Settings())
    pages = [route for route in app.routes if isinstance(route, Route)]
    return sorted({(method, route.path) for route in [*pages, *server_routes()] for method in route.methods or ()})


@pytest.mark.parametrize("authorization", [None, "Bearer wrong"])
def test_every_route_but_the_probes_needs_a_key(authorization: str | None, tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "keys").write_text("alice:right")
        headers = {"Authorization": authorization} if authorization else {}
        engine = FakeEngine()
        async with serving(engine, [FakePRM()], Settings(api_key_file=tmp_path / "keys"), headers) as client:
            asked = [(m, p) for m, p in routes() if p not in OPEN_PATHS]
            assert len(asked) > 15
            for method, path in asked:
                for spelled in (path, f"/{path}", f"{path}/", path.upper()):
                    response = await client.request(method, spelled, json={} if method == "POST" else None)
                    assert response.status_code == 401, (method, spelled)
            assert (await client.get("/health")).status_code == 200
        assert engine.generated == 0

    asyncio.run(main())


class Audit:
    """What this process opens, connects to, imports and starts, while it is looked at."""

    def __init__(self) -> None:
        self._seen: list[str] | None = None
        # There is no way to take it away again.
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is not None and event in ("open", "socket.connect", "os.listdir", "import", "subprocess.Popen"):
            self._seen.append(f"{event} {arguments}")

    @contextmanager
    def __call__(self) -> Iterator[list[str]]:
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None


@pytest.fixture(scope="module")
def audited() -> Audit:
    return Audit()


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": list(parts)}])


def item(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "fake", "input": [{"role": "user", "content": list(parts)}], **fields}


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"$ref": "PLACE"}}}
NAMES = [
    (CHAT, user({"type": "image_url", "image_url": {"url": "PLACE"}})),
    (CHAT, user({"type": "input_audio", "input_audio": {"data": "PLACE", "format": "wav"}})),
    (CHAT, user({"type": "audio_url", "audio_url": {"url": "PLACE"}})),
    (CHAT, user({"type": "video_url", "video_url": {"url": "PLACE"}})),
    (CHAT, user({"type": "file", "file": {"file_id": "PLACE", "filename": "PLACE", "file_data": "PLACE"}})),
    (CHAT, user({"type": "text", "text": "PLACE", "image_url": "PLACE"})),
    (CHAT, body(model="PLACE")),
    (CHAT, body(model="fake@PLACE")),
    (CHAT, body(response_format=SCHEMA)),
    (CHAT, body(tools=[TOOL])),
    (CHAT, body(tools=[{"type": "mcp", "server_url": "PLACE"}])),
    (CHAT, body(web_search_options={"url": "PLACE"})),
    *(
        (endpoint, {**asked, field: value})
        for endpoint, asked in (
            (CHAT, body()),
            (TEXT, {"model": "fake", "prompt": "x"}),
            (RESPONSES, {"model": "fake", "input": "x"}),
        )
        for field, value in {
            "chat_template": "{% include 'PLACE' %}",
            "chat_template_kwargs": {"chat_template": "{% include 'PLACE' %}", "tokenizer": "PLACE"},
            "base_url": "PLACE",
            "api_base": "PLACE",
            "upstream": "PLACE",
            "upstream_api_key": "PLACE",
            "engine": "PLACE",
            "tokenizer": "PLACE",
            "lora_request": {"lora_name": "x", "lora_int_id": 1, "lora_path": "PLACE"},
            "lora_path": "PLACE",
            "adapter": "PLACE",
            "documents": [{"text": "PLACE"}],
            "mm_processor_kwargs": {"path": "PLACE"},
            "media_io_kwargs": {"image": {"url": "PLACE"}},
            "structured_outputs": {"grammar": "PLACE"},
            "guided_grammar": "PLACE",
            "logits_processors": ["PLACE"],
            "kv_transfer_params": {"remote_host": "PLACE"},
            "prompt_embeds": "PLACE",
            "metadata": {"url": "PLACE"},
        }.items()
    ),
    *(
        (endpoint, {**asked, "tts": {"strategy": "best_of_n", "n": 2, field: "PLACE"}})
        for endpoint, asked in ((CHAT, body()), (RESPONSES, {"model": "fake", "input": "x"}))
        for field in ("prm", "model", "upstream", "prm_upstream", "engine", "url", "system_prompt", "examples")
    ),
    (RESPONSES, item({"type": "input_image", "image_url": "PLACE"})),
    (RESPONSES, item({"type": "input_file", "file_url": "PLACE", "file_id": "PLACE"})),
    (RESPONSES, {"model": "fake", "input": "x", "tools": [{"type": "mcp", "server_url": "PLACE"}]}),
    (RESPONSES, {"model": "fake", "input": "x", "prompt": {"id": "PLACE"}}),
    (RESPONSES, {"model": "fake", "input": "x", "previous_response_id": "PLACE"}),
    (RESPONSES, {"model": "fake", "input": "x", "text": {"format": SCHEMA["json_schema"]}}),
    ("/v1/prm/score", {"question": "1+1", "steps": ["PLACE"], "prm": "PLACE", "model": "PLACE"}),
    ("/score", {"model": "PLACE", "text_1": "1+1", "text_2": "2"}),
    ("/rerank", {"model": "PLACE", "query": "1+1", "documents": ["PLACE"]}),
    ("/tokenize", {"model": "PLACE", "prompt": "x"}),
    ("/tokenize", {"model": "fake", "prompt": "PLACE", "chat_template": "PLACE"}),
    ("/detokenize", {"model": "PLACE", "tokens": [1]}),
    ("/v1/batches", {"input_file_id": "PLACE", "endpoint": CHAT, "completion_window": "24h"}),
    ("/v1/batches", {"input_file_id": "file-x", "endpoint": "PLACE", "completion_window": "24h"}),
]


def test_no_field_makes_the_server_fetch_open_or_load_anything(audited: Audit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the-words-of-the-file")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        port = listening.getsockname()[1]
        places = [f"http://127.0.0.1:{port}/x", f"file://{tmp_path}/secret", f"{tmp_path}/secret", "../" * 9 + "etc"]

        async def main() -> None:
            settings = Settings(data_dir=tmp_path / "data")
            async with serving(FakeEngine(), [FakePRM()], settings) as client:
                for path, asked in NAMES:
                    for place in places:
                        text = json.dumps(asked).replace("PLACE", place)
                        with audited() as seen:
                            response = await client.post(
                                path, content=text, headers={"content-type": "application/json"}
                            )
                        assert response.status_code < 500, (text, response.text)
                        assert "the-words-of-the-file" not in response.text
                        assert not [did for did in seen if str(port) in did or "secret" in did or place in did], text

        asyncio.run(main())
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_the_audit_would_see_it(audited: Audit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with audited() as seen, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        (tmp_path / "secret").read_text()
        socket.create_connection(listening.getsockname()).close()
    assert any("open" in did and "secret" in did for did in seen)
    assert any("connect" in did for did in seen)


def test_an_uploaded_file_s_name_is_no_path(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(settings=Settings(data_dir=tmp_path / "data")) as client:
            for name in ("../../outside.jsonl", f"{tmp_path}/outside.jsonl"):
                upload = {"file": (name, b'{"custom_id": "1"}\n', "application/jsonl")}
                response = await client.post("/v1/files", files=upload, data={"purpose": "batch"})
                assert response.status_code == 200
                id_ = response.json()["id"]
                assert (await client.get(f"/v1/files/{id_}/content")).content == b'{"custom_id": "1"}\n'
            for id_ in ("..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", ".."):
                assert (await client.get(f"/v1/files/{id_}/content")).status_code == 404

    asyncio.run(main())
    found = [os.path.join(where, name) for where, _, names in os.walk(tmp_path) for name in names]
    assert [name for name in found if "outside" in name] == []


DEEP: Any = json.loads("[" * 900 + "]" * 900)
MESSAGE = {"role": "user", "content": "x"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
PAIR = {"question": "1+1", "steps": ["2"]}
BOUNDS = [
    (CHAT, body(messages=[MESSAGE] * 10_001), "messages"),
    (CHAT, body(messages=[]), "messages"),
    (CHAT, body(n=129), "n"),
    (CHAT, body(n=5), "n"),
    (CHAT, body(max_tokens=0), "max_tokens"),
    (CHAT, body(max_tokens=10**30), "max_tokens"),
    (CHAT, body(stop=["x"] * 5), "stop"),
    (CHAT, body(stop="x" * 1001), "stop"),
    (CHAT, body(stop_token_ids=[1] * 65), "stop_token_ids"),
    (CHAT, body(logit_bias={str(i): 1 for i in range(1025)}), "logit_bias"),
    (CHAT, body(logprobs=True, top_logprobs=21), "top_logprobs"),
    (CHAT, body(seed=2**63), "seed"),
    (CHAT, body(tools=[FUNCTION] * 129), "tools"),
    (CHAT, body(tools=[{"type": "function", "function": {"name": "f" * 65}}]), "tools[0].function.name"),
    (CHAT, body(messages=[{"role": "assistant", "tool_calls": [{}] * 129}]), "messages[0].tool_calls"),
    (
        CHAT,
        body(response_format={"type": "json_schema", "json_schema": {"name": "x" * 65, "schema": {}}}),
        "response_format.json_schema.name",
    ),
    (CHAT, body(response_format={"type": DEEP}), "response_format.type"),
    (CHAT, body(tts={"strategy": "best_of_n", "n": 4097}), "tts.n"),
    (CHAT, body(tts={"strategy": "best_of_n", "n": 5}), "tts.n"),
    (CHAT, body(tts={"strategy": "beam_search", "n": 2, "max_steps": 10**6}), "tts.max_steps"),
    (CHAT, body(tts={"strategy": "single", "system_prompt": "x" * 20_001}), "tts.system_prompt"),
    (CHAT, body(tts={"strategy": "single", "examples": [{"question": "x", "answer": "x"}] * 65}), "tts.examples"),
    (CHAT, body(tts={"strategy": "mixture_of_agents", "layers": 17}), "tts.layers"),
    (CHAT, body(tts={"strategy": "best_of_n", "budget": {"max_tokens": 0}}), "tts.budget.max_tokens"),
    (TEXT, {"model": "fake", "prompt": ["x"] * 1025}, "prompt"),
    (TEXT, {"model": "fake", "prompt": "x", "n": 129}, "n"),
    (TEXT, {"model": "fake", "prompt": "x", "best_of": 129}, "best_of"),
    (TEXT, {"model": "fake", "prompt": "x", "logprobs": 21}, "logprobs"),
    (TEXT, {"model": "fake", "prompt": "x", "stop_token_ids": [1] * 65}, "stop_token_ids"),
    (RESPONSES, {"model": "fake", "input": [MESSAGE] * 10_000}, "input"),
    (RESPONSES, {"model": "fake", "input": "x", "metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    (RESPONSES, {"model": "fake", "input": "x", "tts": {"strategy": "best_of_n", "n": 4097}}, "tts.n"),
    ("/v1/prm/score", {"question": "1+1", "steps": ["2"] * 1025}, "steps"),
    ("/v1/prm/score", {"question": "1+1", "solution": "2\n\n" * 1025}, "solution"),
    ("/v1/prm/score", {"batch": [PAIR] * 1025}, "batch"),
    ("/rerank", {"query": "1+1", "documents": ["2"] * 1025}, "documents"),
    ("/score", {"text_1": "1+1", "text_2": ["2"] * 1025}, "text_2"),
]


def test_what_a_request_holds_is_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine()
        settings = Settings.model_validate({"max_request": {"max_samples": 4}, "data_dir": tmp_path})
        async with serving(engine, [FakePRM()], settings) as client:
            for path, asked, param in BOUNDS:
                response = await client.post(path, json=asked)
                assert response.status_code == 400, (path, param, response.text[:200])
                assert response.json()["error"]["param"] == param
                # What is too long does not come back.
                assert len(response.content) < 3000
            response = await client.post(CHAT, json=body(chat_template_kwargs={"x": DEEP}))
            assert response.status_code == 400
            assert response.json()["error"]["param"].startswith("chat_template_kwargs.x")
            for deep in ("[" * 10**5, '{"model":' * 10**5):
                response = await client.post(CHAT, content=deep, headers={"content-type": "application/json"})
                assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")
        assert engine.generated == 0

    asyncio.run(main())


def test_every_line_of_the_page_has_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    lines = [line for line in page.partition("## Keys")[2].splitlines() if line.startswith("| ")]
    promises = [line for line in lines if line != "| line | test |"]
    assert len(promises) > 30
    for promise in promises:
        named = re.findall(r"`(tests/\S+\.py)::(\w+)`", promise)
        assert named, promise
        for file, name in named:
            assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
