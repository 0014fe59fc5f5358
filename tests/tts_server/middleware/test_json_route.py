"""What the standard does not allow is a 400, whichever way Python's own parser would take it."""

import asyncio
import inspect

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from patience import NEVER_S
from pydantic import BaseModel
from serving import serving

from prm import FakePRM
from tts_server.middleware.json_route import JSONRoute

CHAT = b'{"model":"fake","messages":[{"role":"user","content":"hi"}],"x":%s}'


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"",
        b"\xff\xfe",
        CHAT % b'"\xff"',
        CHAT % b'"\\ud800"',
        CHAT % b"NaN",
        CHAT % b"-Infinity",
        CHAT % (b"9" * 5000),
        CHAT % (b"[" * 100_000 + b"]" * 100_000),
        CHAT.replace(b'"hi"', b'"\\udfff"') % b"1",
    ],
    ids=lambda data: repr(data[-20:]),
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await client.post(
                "/v1/chat/completions", content=data, headers={"content-type": "application/json"}
            )
            error = response.json()["error"]
            assert response.status_code == 400
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
            assert error["message"].startswith("The body is not valid JSON: " if data else "The body is empty")

    asyncio.run(main())


@pytest.mark.parametrize("depth", [200, 300, 900])
@pytest.mark.parametrize(
    "place",
    [
        '"chat_template_kwargs":{"x":%s}',
        '"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"x":%s}}}',
        '"tts":{"strategy":"best_of_n","n":%s}',
        '"tools":%s',
        '"metadata":%s',
    ],
)
def test_deep_nesting_is_no_server_error(depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth

    async def main() -> None:
        async with serving() as client:
            data = '{"model":"fake","messages":[{"role":"user","content":"hi","x":%s}],%s}' % (deep, place % deep)  # noqa: UP031  braces
            response = await client.post(
                "/v1/chat/completions", content=data, headers={"content-type": "application/json"}
            )
            assert response.status_code in (200, 400), response.text
            assert len(response.content) < 3000

    asyncio.run(main())


def test_an_endpoint_of_a_request_and_a_body_is_called_at_once() -> None:
    """Not by way of FastAPI's search for what it depends on, in any release of FastAPI."""
    callers: list[str] = []

    class Body(BaseModel):
        n: int

    router = APIRouter(route_class=JSONRoute)

    @router.post("/direct")
    async def direct(request: Request, body: Body) -> Response:
        callers.append(inspect.stack()[1].frame.f_globals["__name__"])
        return Response(str(body.n))

    async def main() -> None:
        app = FastAPI()
        app.include_router(router)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", timeout=NEVER_S
        ) as client:
            assert (await client.post("/direct", json={"n": 3})).text == "3"

    asyncio.run(main())
    assert callers == [JSONRoute.__module__]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The body is empty; a JSON object is needed."),
        (b"null", "The body is empty; a JSON object is needed."),
        (b"[]", "The body is no object; a JSON object is needed."),
        (b'"x"', "The body is no object; a JSON object is needed."),
        ((CHAT % b"1").decode().encode("utf-16"), "The body is not valid JSON: it is not UTF-8."),
        (CHAT % b'"caf\xe9"', "The body is not valid JSON: it is not UTF-8."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/prm/score"])
def test_what_is_wrong_with_a_whole_body_is_told_in_words_of_json(path: str, data: bytes, message: str) -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            response = await client.post(path, content=data, headers={"content-type": "application/json"})
            assert (response.status_code, response.json()["error"]["message"]) == (400, message)

    asyncio.run(main())


def test_a_byte_order_mark_does_not_count() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            for path, data in (
                ("/v1/chat/completions", CHAT % b"1"),
                ("/v1/prm/score", b'{"question":"1+1","steps":["2"]}'),
                ("/tokenize", b'{"prompt":"x"}'),
            ):
                headers = {"content-type": "application/json"}
                response = await client.post(path, content=b"\xef\xbb\xbf" + data, headers=headers)
                assert response.status_code == 200, response.text

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b'"max_tokens":4.0', 200),
        (b'"max_tokens":4e0,"temperature":1,"top_p":1.0,"seed":-7.0,"n":2.0', 200),
        (b'"tts":{"strategy":"best_of_n","n":2.0,"budget":{"max_tokens":100.0,"deadline_s":5.0}}', 200),
        (b'"max_tokens":4.5', 400),
        (b'"tts":{"strategy":"best_of_n","n":2.5}', 400),
        (b'"seed":1e300', 400),
        (b'"max_tokens":"4"', 400),
    ],
)
def test_a_whole_number_may_be_written_with_a_point(fields: bytes, status: int) -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            data = CHAT.replace(b'"x":%s', fields)
            response = await client.post(
                "/v1/chat/completions", content=data, headers={"content-type": "application/json"}
            )
            assert response.status_code == status, response.text

    asyncio.run(main())
