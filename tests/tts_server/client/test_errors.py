"""What the client raises."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asking import asked, served
from scripted import Reply, scripted

from tts_server.client import (
    APIError,
    AsyncClient,
    AuthenticationFailed,
    BadRequest,
    BestOfN,
    Client,
    ContextTooLong,
    NotFound,
    RequestTooLarge,
    ServerError,
    Unavailable,
    UnexpectedAnswer,
    UnsupportedParameter,
)
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest


@pytest.mark.parametrize(
    ("fields", "error", "status", "code", "param"),
    [
        ({"tts": {"strategy": "nope"}}, BadRequest, 400, "invalid_value", "tts.strategy"),
        ({"tts": BestOfN(n=0)}, BadRequest, 400, "invalid_value", "tts.n"),
        ({"temperature": 3}, BadRequest, 400, "invalid_value", "temperature"),
        ({"extra_body": {"audio": {}}}, UnsupportedParameter, 400, "unsupported_parameter", "audio"),
        ({"messages": "x " * 40_000}, ContextTooLong, 400, "context_length_exceeded", "messages"),
        ({"model": "gpt-9"}, NotFound, 404, "model_not_found", "model"),
    ],
)
def test_errors_are_typed(fields: dict[str, Any], error: type[APIError], status: int, code: str, param: str) -> None:
    def ask(client: Client) -> None:
        for call in (client.chat, lambda *a, **k: client.stream(*a, **k).result()):
            with pytest.raises(error) as caught:
                call(**{"messages": "?", **fields})
            raised = caught.value
            assert type(raised) is error
            assert (raised.status, raised.code, raised.param) == (status, code, param)
            assert raised.type == "invalid_request_error"
            assert raised.request_id
            assert str(raised) == raised.message != ""

    asked(ask)


def test_keys_and_sizes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")

    def work(url: str) -> None:
        with Client(url, "right", model="fake") as client:
            assert client.chat("?").text
            with pytest.raises(RequestTooLarge):
                client.chat("x" * 5000)
        for key in (None, "wrong"):
            with Client(url, key, model="fake") as client:
                assert client.health()
                with pytest.raises(AuthenticationFailed) as caught:
                    client.chat("?")
                assert caught.value.code == "invalid_api_key"

    served(work, settings=Settings(api_key_file=keys, max_body_bytes=4096))


def test_failures_of_the_engine() -> None:
    def fails(request: FakeRequest) -> str:
        raise OSError("no disk")

    def ask(client: Client) -> None:
        with pytest.raises(ServerError) as caught:
            client.chat("?")
        assert (caught.value.status, type(caught.value)) == (500, ServerError)

    asked(ask, FakeEngine(fails), max_retries=0)
    engine = FakeEngine()

    def ask_dead(client: Client) -> None:
        engine.healthy = False
        with pytest.raises(Unavailable) as caught:
            client.chat("?")
        assert caught.value.retry_after_s

    asked(ask_dead, engine, max_retries=0)


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, {"detail": "no"}, BadRequest, "no"),
        (401, {"error": "Unauthorized"}, AuthenticationFailed, "Unauthorized"),
        (418, {"error": {"message": "teapot", "code": 418}}, APIError, "teapot"),
        (502, b"<html>bad gateway</html>", ServerError, "bad gateway"),
        (404, b"", NotFound, "no reason"),
        (307, {}, APIError, "no reason"),
    ],
)
def test_errors_of_other_servers_are_typed_too(status: int, body: Any, error: type[APIError], message: str) -> None:
    async def main() -> None:
        reply = Reply(status, body, {"x-should-retry": "false"})
        async with scripted(reply) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(APIError, match=message) as caught:
                await client.chat("?")
            assert type(caught.value) is error
            assert caught.value.status == status

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"<html>", {}, [], {"id": "1", "model": "m", "created": 1, "choices": 4}])
def test_an_answer_in_another_format_is_refused(body: Any) -> None:
    async def main() -> None:
        async with scripted(Reply(body=body)) as server, AsyncClient(server.url, model="fake") as client:
            with pytest.raises(UnexpectedAnswer):
                await client.chat("?")

    asyncio.run(main())


def test_what_is_needed_before_asking() -> None:
    with Client("http://127.0.0.1:9") as client:
        for call in (client.chat, client.stream):
            with pytest.raises(ValueError, match="model is required"):
                call("?")
    for url in ("127.0.0.1:8000", "ftp://host", "", "http://host:99999", "http://[::1", "http://host:x"):
        with pytest.raises(ValueError, match="base_url"):
            Client(url)


@pytest.mark.parametrize("key", ["secret\n", "se cret", "sécret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        AsyncClient("http://127.0.0.1:9", key)
    assert "cret" not in str(caught.value)
