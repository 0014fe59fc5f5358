"""Errors to responses: OpenAI's error object everywhere, never FastAPI's `detail`, never 422."""

import asyncio
from typing import Any

import pytest
from serving import ask, serving

from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.errors import UpstreamError
from tts_server.middleware.error_responses import invalid


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/", 404, "not_found", "There is nothing at '/'."),
        ("GET", "/v1/nothing", 404, "not_found", "There is nothing at '/v1/nothing'."),
        ("POST", "/v1/nothing", 404, "not_found", "There is nothing at '/v1/nothing'."),
        (
            "POST",
            "/chat/completions",
            404,
            "not_found",
            "There is nothing at '/chat/completions'. There is '/v1/chat/completions': the base URL of a client ends "
            "with one /v1.",
        ),
        (
            "GET",
            "/v1/v1/models/a@b",
            404,
            "not_found",
            "There is nothing at '/v1/v1/models/a@b'. There is '/v1/models/a@b': the base URL of a client ends with "
            "one /v1.",
        ),
        ("GET", "/" + "x" * 5000, 404, "not_found", f"There is nothing at '/{'x' * 79}…'."),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "GET is not allowed at /v1/chat/completions."),
        ("OPTIONS", "/v1/models", 405, "method_not_allowed", "OPTIONS is not allowed at /v1/models."),
        ("DELETE", "/v1/models/fake", 405, "method_not_allowed", "DELETE is not allowed at /v1/models/fake."),
        ("POST", "/health", 405, "method_not_allowed", "POST is not allowed at /health."),
    ],
)
def test_unknown_paths_and_methods(method: str, path: str, status: int, code: str, message: str) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await client.request(method, path, json={} if method == "POST" else None)
            assert response.status_code == status
            assert response.headers["content-type"] == "application/json"
            assert response.json() == {
                "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            }
            assert ("allow" in response.headers) is (status == 405)

    asyncio.run(main())


def test_an_engine_s_own_error_keeps_its_status() -> None:
    def fails(request: FakeRequest) -> str:
        raise UpstreamError("the upstream answered 503")

    async def main() -> None:
        async with serving(FakeEngine(fails)) as client:
            response = await ask(client)
            assert response.status_code == 502
            assert response.json()["error"] == {
                "message": "the upstream answered 503",
                "type": "server_error",
                "param": None,
                "code": "upstream_error",
            }

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "param", "message"),
    [
        ({"loc": ("body", "a", 0, "b"), "msg": "bad", "input": 5}, "a[0].b", "a[0].b: bad, got '5'"),
        ({"loc": ("body", "stop", "list[str]", 1), "msg": "bad", "input": None}, "stop[1]", "stop[1]: bad"),
        ({"loc": ("body",), "msg": "bad", "input": []}, None, "body: bad"),
        ({"loc": ("body",), "msg": "n is bad", "ctx": {"field": "n"}}, "n", "n is bad"),
    ],
)
def test_a_place_is_written_as_in_json(error: dict[str, Any], param: str | None, message: str) -> None:
    seen = invalid({"type": "value", **error})
    assert (seen.param, seen.message) == (param, message)
