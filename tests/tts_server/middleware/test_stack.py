"""What every request passes before a route."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import ask, body, serving

from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.routes import routes


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("# the team\nalpha\n\n  beta  \n")
    return path


@pytest.mark.parametrize("header", ["Bearer alpha", "bearer beta", "BEARER  alpha"])
def test_a_known_key_opens(keys: Path, header: str) -> None:
    async def main() -> None:
        async with serving(settings=Settings(api_key_file=keys), headers={"Authorization": header}) as client:
            assert (await ask(client)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer gamma", "Basic alpha", "alpha", "Bearer alph"])
def test_without_a_key_nothing_but_health_answers(keys: Path, header: str | None) -> None:
    async def main() -> None:
        headers = {"Authorization": header} if header else None
        engine = FakeEngine()
        async with serving(engine, settings=Settings(api_key_file=keys), headers=headers) as client:
            assert (await client.get("/health")).status_code == 200
            # A browser asks before it sends a key, and learns no more than which methods there are.
            asked = await client.options("/v1/chat/completions")
            assert (asked.status_code, asked.json()["error"]["code"]) == (405, "method_not_allowed")
            for method, path in [
                ("POST", "/v1/chat/completions"),
                ("GET", "/v1/models"),
                ("GET", "/v1/strategies"),
                ("POST", "/v1/prm/score"),
                ("GET", "/openapi.json"),
                ("GET", "/nothing"),
            ]:
                response = await client.request(method, path, json=body() if method == "POST" else None)
                assert response.status_code == 401, path
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.headers["x-request-id"]
                assert response.json() == {
                    "error": {
                        "message": "No valid API key. Send it as 'Authorization: Bearer <key>'.",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "invalid_api_key",
                    }
                }
        assert engine.generated == 0

    asyncio.run(main())


def test_head_is_get_without_its_body(tmp_path: Path) -> None:
    fetched = [route for route in routes() if "GET" in (route.methods or ())]
    assert len(fetched) > 10

    async def main() -> None:
        async with serving(settings=Settings(data_dir=tmp_path)) as client:
            for route in fetched:
                path = route.path.replace("{id:path}", "fake").replace("{", "").replace("}", "")
                get, head = await client.get(path), await client.head(path)
                assert head.status_code == get.status_code, path
                assert head.content == b""
                left_out = {"date", "x-request-id", "transfer-encoding"}
                # What the process counts of itself changes between the two.
                left_out |= {"content-length"} if path == "/metrics" else set()
                assert {k: v for k, v in head.headers.items() if k not in left_out} == {
                    k: v for k, v in get.headers.items() if k not in left_out
                }, path
            assert (await client.head("/v1/chat/completions")).status_code == 405
            assert (await client.head("/nothing")).status_code == 404
            counted = (await client.get("/metrics")).text
            assert 'endpoint="/v1/traces/{id}"' in counted
            assert 'endpoint="/v1/models/{id:path}"' in counted

    asyncio.run(main())


@pytest.mark.parametrize(
    "path", ["//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat//"]
)
def test_needless_slashes_do_not_count(path: str, keys: Path) -> None:
    async def main() -> None:
        async with serving(settings=Settings(api_key_file=keys)) as client:
            url = str(client.base_url).rstrip("/") + path
            assert (await client.post(url, json=body())).status_code == 401
            key = {"Authorization": "Bearer alpha"}
            answer = await client.post(url, json=body(), headers=key)
            assert answer.status_code == (404 if path.endswith("chat//") else 200)
            assert (await client.get("/v1/models/", headers=key)).json()["object"] == "list"

    asyncio.run(main())


def test_the_caller_s_request_id_comes_back_on_every_answer() -> None:
    async def main() -> None:
        async with serving() as client:
            mine = {"x-request-id": "mine-1"}
            for response in [
                await client.post("/v1/chat/completions", json=body(), headers=mine),
                await client.post("/v1/chat/completions", json=body(stream=True), headers=mine),
                await client.post("/v1/chat/completions", json=body(n=0), headers=mine),
                await client.get("/nothing", headers=mine),
                await client.get("/health", headers=mine),
            ]:
                assert response.headers["x-request-id"] == "mine-1"
            for sent in ({}, {"x-request-id": ""}, {"x-request-id": "y" * 129}, {"x-request-id": b"\xe9"}):
                headers: Any = sent
                given = (await client.get("/health", headers=headers)).headers["x-request-id"]
                assert len(given) == 32
                assert given.isalnum()

    asyncio.run(main())


def test_a_bug_is_a_500_without_its_cause_but_with_its_id(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeEngine):
        @property
        def healthy(self) -> bool:
            raise RuntimeError("/etc/secret")

        @healthy.setter
        def healthy(self, value: bool) -> None: ...

    async def main() -> None:
        async with serving(Broken()) as client:
            response = await client.post("/v1/chat/completions", json=body(), headers={"x-request-id": "mine"})
            assert response.status_code == 500
            assert response.headers["x-request-id"] == "mine"
            assert response.json() == {
                "error": {
                    "message": "The server failed to answer this request.",
                    "type": "server_error",
                    "param": None,
                    "code": "internal_error",
                }
            }

    asyncio.run(main())
    assert "/etc/secret" in capfd.readouterr().err


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_body_over_the_limit_is_refused(declared: bool) -> None:
    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, settings=Settings(max_body_bytes=5000)) as client:
            for size, status in ((4000, 200), (6000, 413)):
                text = b'{"model":"fake","messages":[{"role":"user","content":"x"}],"pad":"' + b"p" * size + b'"}'
                response = await client.post(
                    "/v1/chat/completions",
                    content=text if declared else pieces(text),
                    headers={"content-type": "application/json"},
                )
                assert response.status_code == status, response.text
            assert response.json() == {
                "error": {
                    "message": "The body is over the limit of 5000 bytes.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "request_too_large",
                }
            }

    asyncio.run(main())


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_a_body_that_is_not_called_json_is_refused(media_type: str) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await client.post(
                "/v1/chat/completions", content=b'{"model":"fake"}', headers={"content-type": media_type}
            )
            assert response.status_code == 400
            assert response.json() == {
                "error": {
                    "message": f"Content-Type: application/json is needed, got {media_type!r}.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_value",
                }
            }
            headers = {"content-type": "Application/JSON; charset=utf-8"}
            ok = b'{"model":"fake","messages":[{"role":"user","content":"x"}]}'
            assert (await client.post("/v1/chat/completions", content=ok, headers=headers)).status_code == 200

    asyncio.run(main())


PAGE = "http://localhost:3000"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


@pytest.mark.parametrize("origins", [(PAGE,), ("https://x.test", PAGE), ("*",)])
def test_a_page_of_a_named_origin_may_ask_and_read_every_answer(origins: tuple[str, ...], keys: Path) -> None:
    async def main() -> None:
        settings = Settings(cors_origins=origins, api_key_file=keys, max_body_bytes=5000)
        async with serving(settings=settings) as client:
            for path in ("/v1/chat/completions", "/v1/files", "/v1/traces/x"):
                asked = await client.options(
                    path, headers=PREFLIGHT | {"Access-Control-Request-Private-Network": "true"}
                )
                assert asked.status_code == 200
                assert asked.headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
                assert {"GET", "POST", "DELETE"} <= set(asked.headers["access-control-allow-methods"].split(", "))
                assert asked.headers["access-control-allow-private-network"] == "true"
                assert "access-control-allow-credentials" not in asked.headers
                assert asked.headers["access-control-allow-origin"] == (PAGE if len(origins[0]) > 1 else "*")
            page = {"Origin": PAGE, "Authorization": "Bearer alpha"}
            for fields, headers, status in (
                ({}, page, 200),
                ({"stream": True}, page, 200),
                ({"n": 0}, page, 400),
                ({}, {"Origin": PAGE}, 401),
                ({"pad": "p" * 6000}, page, 413),
            ):
                answer = await client.post("/v1/chat/completions", json=body(**fields), headers=headers)
                assert answer.status_code == status
                assert answer.headers["access-control-allow-origin"] in (PAGE, "*")
                assert "x-request-id" in answer.headers["access-control-expose-headers"]
                assert "retry-after" in answer.headers["access-control-expose-headers"]

    asyncio.run(main())


def test_no_other_page_is_let_in(keys: Path) -> None:
    async def main() -> None:
        for settings, status in ((Settings(), 405), (Settings(cors_origins=("http://localhost:3001",)), 400)):
            async with serving(settings=settings) as client:
                asked = await client.options("/v1/chat/completions", headers=PREFLIGHT)
                assert asked.status_code == status
                assert status == 400 or "cors_origins" in asked.json()["error"]["message"]
                for answer in (asked, await client.get("/v1/models", headers={"Origin": PAGE})):
                    assert "access-control-allow-origin" not in answer.headers

    asyncio.run(main())
