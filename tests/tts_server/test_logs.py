"""What log lines say, and that they tell neither keys nor what was asked."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from patience import NEVER_S
from serving import serving, until

from prm import FakePRM, PRMError
from tts_server.config import KeyLimits, Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.errors import InvalidRequest, UpstreamError
from tts_server.logs import JSONFormatter, LogFormatter, Private, kinds, outline

SECRET = "marker-of-what-was-asked"
KEY = "sk-marker-of-a-key"
ROOT = Path(__file__).parents[2]


@contextmanager
def logged(*, prompts: bool = False, made: type[LogFormatter] = LogFormatter) -> Iterator[io.StringIO]:
    """Everything that any logger says, as the operator sees it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(made(prompts=prompts))
    ours = logging.getLogger("tts_server")
    level = ours.level
    ours.setLevel(logging.DEBUG)
    # What uvicorn says does not reach the root here.
    outer = [logging.getLogger(), logging.getLogger("uvicorn")]
    for each in outer:
        each.addHandler(handler)
    try:
        yield text
    finally:
        for each in outer:
            each.removeHandler(handler)
        ours.setLevel(level)


def failed() -> Exception:
    """An error with a cause, a context and a group, which all quote what was asked."""
    try:
        try:
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise ExceptionGroup(SECRET, [ValueError(SECRET), TypeError(SECRET)]) from error
        except ExceptionGroup:
            raise RuntimeError(SECRET)  # noqa: B904  the context is what is tested
    except RuntimeError as error:
        return error


def test_an_outline_has_every_place_and_no_words() -> None:
    text = outline(failed())
    assert SECRET not in text
    assert [text.index(f"{name} (left out") for name in ("KeyError", "ValueError", "TypeError", "RuntimeError")]
    assert text.index("KeyError") < text.index("ExceptionGroup (") < text.index("RuntimeError (")
    assert text.count(", in failed") == 3
    assert "raise KeyError(SECRET)" in text


def test_kinds_are_classes_without_words() -> None:
    assert kinds(failed()) == "RuntimeError from ExceptionGroup from KeyError"
    error = UpstreamError(SECRET)
    error.__cause__ = httpx.ConnectError(SECRET)
    assert kinds(error) == "tts_server.errors.UpstreamError from httpx.ConnectError"
    hidden = ValueError(SECRET)
    hidden.__context__, hidden.__suppress_context__ = TypeError(SECRET), True
    assert kinds(hidden) == "ValueError"


@pytest.mark.parametrize("prompts", [False, True])
def test_only_who_asks_for_it_sees_what_is_private(prompts: bool) -> None:
    with logged(prompts=prompts) as text:
        log = logging.getLogger("tts_server.test")
        log.info("one: %s", Private(SECRET))
        log.error("two", exc_info=failed())
        logging.getLogger("asyncio").error("never retrieved\nfuture: %s", SECRET, exc_info=failed())
    said = text.getvalue()
    assert (SECRET in said) is prompts
    assert said.startswith(f"one: {SECRET if prompts else '(left out; the setting log_prompts shows it)'}\ntwo\n")
    assert said.count("Traceback (most recent call last)") > 2
    assert "never retrieved\n" in said


def test_private_text_is_not_told_by_other_formatters(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("tts_server.test").warning("%s", Private(SECRET))
    assert SECRET not in caplog.text


@pytest.mark.parametrize("prompts", [False, True])
def test_json_lines_say_the_same(prompts: bool) -> None:
    with logged(prompts=prompts, made=JSONFormatter) as text:
        log = logging.getLogger("tts_server.test")
        log.info("one: %s\n%s", Private(SECRET), "half \ud83d of it")
        log.error("two", exc_info=failed(), stack_info=True)
    one, two = map(json.loads, text.getvalue().splitlines())
    shown = SECRET if prompts else "(left out; the setting log_prompts shows it)"
    assert one.pop("time").endswith("+00:00")
    assert one == {"level": "info", "logger": "tts_server.test", "message": f"one: {shown}\nhalf \\ud83d of it"}
    assert (two["level"], two["message"]) == ("error", "two")
    assert two["error"].count("Traceback (most recent call last)") > 2
    assert two["stack"].startswith("Stack (most recent call last)")
    assert (SECRET in two["error"]) is prompts


@pytest.mark.parametrize("made", [LogFormatter, JSONFormatter])
def test_each_line_of_a_request_has_its_id(made: type[LogFormatter]) -> None:
    def script(request: FakeRequest) -> str:
        logging.getLogger("tts_server.test").info("asked %s", request.text.count("x"))
        return "fine"

    async def main() -> list[str]:
        with logged(made=made) as text:
            async with serving(FakeEngine(script), [FakePRM()]) as client:
                for count in (1, 2):
                    chat = {"model": "fake", "messages": [{"role": "user", "content": "x" * count}]}
                    tts = {"strategy": "best_of_n", "n": 2}
                    headers = {"x-request-id": f"mine-{count}"}
                    await client.post("/v1/chat/completions", json={**chat, "tts": tts}, headers=headers)
                answer = await client.post("/v1/chat/completions", json=chat)
            logging.getLogger("tts_server.test").info("outside")
            ids.append(answer.headers["x-request-id"])
        return text.getvalue().splitlines()

    ids = ["mine-1", "mine-2"]
    *lines, outside = asyncio.run(main())

    def of(id_: str) -> list[str]:
        if made is JSONFormatter:
            return [line for line in lines if json.loads(line).get("request_id") == id_]
        return [line for line in lines if line.startswith(f"[{id_}] ")]

    assert [len([line for line in of(id_) if "asked" in line]) for id_ in ids] == [2, 2, 1]
    assert [len([line for line in of(id_) if "PRM tokens" in line]) for id_ in ids] == [1, 1, 1]
    assert sum(len(of(id_)) for id_ in ids) == len(lines)
    assert outside == "outside" if made is LogFormatter else "request_id" not in json.loads(outside)


def asked(**fields: Any) -> dict[str, Any]:
    """A chat that has the marker wherever a text can stand."""
    tool = {"type": "function", "function": {"name": "f", "description": SECRET, "parameters": {"title": SECRET}}}
    call = {"id": SECRET, "type": "function", "function": {"name": "f", "arguments": f'{{"x": "{SECRET}"}}'}}
    return {
        "model": "fake",
        "messages": [
            {"role": "system", "content": SECRET},
            {"role": "user", "content": [{"type": "text", "text": SECRET}], "name": SECRET},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": SECRET},
            {"role": "tool", "tool_call_id": SECRET, "content": SECRET},
            {"role": "user", "content": SECRET},
        ],
        "stop": [SECRET],
        "tools": [tool],
        "user": SECRET,
        "metadata": {SECRET: SECRET},
        **fields,
    }


def said(request: FakeRequest) -> str:
    return f"{SECRET} says so"


def bug(request: FakeRequest) -> NoReturn:
    raise KeyError(request.text)


def refused(request: FakeRequest) -> NoReturn:
    raise InvalidRequest(f"The upstream refuses the request: {request.text}")


def broken_off(request: FakeRequest) -> NoReturn:
    raise UpstreamError(f"The upstream failed: {request.text}")


def unscored(request: FakeRequest) -> NoReturn:
    raise PRMError(f"no score of {request.text}")


@pytest.mark.parametrize(
    ("script", "status"), [(said, 200), (bug, 500), (refused, 400), (broken_off, 502), (unscored, 500)]
)
@pytest.mark.parametrize("strategy", ["single", "best_of_n", "self_consistency"])
def test_no_answer_and_no_failure_logs_what_was_asked(
    script: Callable[[FakeRequest], str], status: int, strategy: str, tmp_path: Path
) -> None:
    async def main() -> str:
        (tmp_path / "keys").write_text(f"alice:{KEY}\n")
        settings = Settings(api_key_file=tmp_path / "keys")
        headers = {"Authorization": f"Bearer {KEY}"}
        with logged() as text:
            async with serving(FakeEngine(script), [FakePRM()], settings, headers) as client:
                for stream in (False, True):
                    body = asked(tts={"strategy": strategy}, stream=stream)
                    assert (await client.post("/v1/chat/completions", json=body)).status_code == status
        return text.getvalue()

    text = asyncio.run(main())
    assert "chatcmpl-" in text
    assert SECRET not in text
    assert KEY not in text


def test_the_same_lines_tell_it_where_the_operator_asks_for_it() -> None:
    async def main() -> str:
        with logged(prompts=True) as text:
            async with serving(FakeEngine(bug)) as client:
                await client.post("/v1/chat/completions", json=asked())
            async with serving(FakeEngine(refused)) as client:
                await client.post("/v1/chat/completions", json=asked())
        return text.getvalue()

    text = asyncio.run(main())
    assert "KeyError: '<tool>" in text
    assert "The upstream refuses the request: <tool>" in text
    assert SECRET in text


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": SECRET},
        {"messages": [{"role": SECRET, "content": SECRET}]},
        {"temperature": SECRET},
        {"tts": {"strategy": SECRET}},
        {"tts": {"strategy": "best_of_n", SECRET: SECRET}},
        {"tts": {"strategy": "best_of_n", "prm": SECRET}},
        {"model": SECRET},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": SECRET}}}},
        {"chat_template_kwargs": {"chat_template": SECRET}},
        {"n": 10**6},
    ],
)
def test_no_refusal_logs_what_was_asked(fields: dict[str, Any]) -> None:
    async def main() -> str:
        with logged() as text:
            async with serving(headers={"Authorization": f"Bearer {KEY}", "x-request-id": "mine"}) as client:
                await client.post("/v1/chat/completions", json=asked(**fields))
                await client.post("/v1/prm/score", json={"question": SECRET, "steps": [SECRET], **fields})
                await client.post("/v1/chat/completions", content=f'{{"x": {SECRET}')
                await client.get(f"/{SECRET}?key={KEY}")
                wrong = {"Authorization": f"Basic {KEY}"}
                await client.get("/v1/models", headers=wrong)
        return text.getvalue()

    text = asyncio.run(main())
    assert SECRET not in text
    assert KEY not in text


@pytest.mark.parametrize("made", [LogFormatter, JSONFormatter])
def test_each_refusal_leaves_a_line_with_its_owner_and_reason(made: type[LogFormatter], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice:{KEY}\n")
    limits = KeyLimits(requests_per_minute=1)
    settings = Settings(api_key_file=tmp_path / "keys", key_limits=limits, max_body_bytes=5000)
    alice = {"Authorization": f"Bearer {KEY}"}
    chat = {"model": "fake", "messages": [{"role": "user", "content": SECRET}]}

    async def main() -> list[str]:
        with logged(made=made) as text:
            async with serving(settings=settings) as client:
                for place, (headers, path) in enumerate(
                    [
                        ({}, "/v1/chat/completions"),
                        ({"Authorization": f"Basic {KEY}"}, "/v1/chat/completions"),
                        ({"Authorization": KEY}, f"/{SECRET}"),
                        ({"Authorization": f"Bearer {KEY}x"}, "/v1/traces/{SECRET}/feedback"),
                        (alice, "/v1/chat/completions"),
                        (alice, "/v1/chat/completions"),
                        (alice, f"/v1/traces/{SECRET}/feedback"),
                    ]
                ):
                    await client.post(path, json=chat, headers=headers | {"x-request-id": f"mine-{place}"})
                await client.post("/v1/files", content=b"x", headers=alice | {"x-request-id": "mine-7"})
        return text.getvalue().splitlines()

    lines = asyncio.run(main())
    assert SECRET not in str(lines)
    assert KEY not in str(lines)
    if made is JSONFormatter:
        read = [json.loads(line) for line in lines]
        lines = [
            f"[{' '.join(filter(None, (each['request_id'], each.get('owner'))))}] {each['message']}" for each in read
        ]
    chat_path, unknown = "POST /v1/chat/completions: refused with", "401 invalid_api_key"
    assert lines[:4] == [
        f"[mine-0] {chat_path} {unknown}: no Authorization header, from 127.0.0.1",
        f"[mine-1] {chat_path} {unknown}: a scheme that is not Bearer, from 127.0.0.1",
        f"[mine-2] POST a path that is not there: refused with {unknown}: a scheme that is not Bearer, from 127.0.0.1",
        f"[mine-3] POST /v1/traces/{{id}}/feedback: refused with {unknown}: a key that nobody has, from 127.0.0.1",
    ]
    assert lines[4].startswith("[mine-4 alice] chatcmpl-")
    assert lines[5] == (
        f"[mine-5 alice] {chat_path} 429 rate_limit_exceeded: The key of 'alice' has its limit of 1 requests a minute."
    )
    left_out = "(left out; the setting log_prompts shows it)"
    assert lines[6:] == [
        f"[mine-6 alice] POST /v1/traces/{{id}}/feedback: refused with 400 invalid_value: {left_out}",
        f"[mine-7 alice] POST /v1/files: refused with 400 invalid_value: {left_out}",
    ]


def test_who_leaves_is_logged_without_what_was_asked() -> None:
    async def main() -> str:
        engine = FakeEngine(lambda r: "word " * 1000 + SECRET, token_s=0.01)
        with logged() as text:
            async with serving(engine) as client:
                task = asyncio.create_task(client.post("/v1/chat/completions", json=asked(tools=None, stop=None)))
                await until(lambda: engine.generated > 5)
                task.cancel()
                await until(lambda: "the client left" in text.getvalue())
        return text.getvalue()

    assert SECRET not in asyncio.run(main())


SCRIPT = """
import asyncio, sys, threading
import httpx
from tts_server.app import create_app
from rich.console import Console
from tts_server.cli.serve import log_to
from tts_server.config import load
from tts_server.engines.fake import FakeEngine
from tts_server.server import serve

class Broken(FakeEngine):
    @property
    def healthy(self):
        raise KeyError(sys.argv[1])

    @healthy.setter
    def healthy(self, value):
        pass

def ask(url):
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    print(httpx.post(url + "/v1/chat/completions", json=body, timeout=None).status_code, flush=True)
    stopping.call_soon_threadsafe(running.cancel)

async def main():
    global stopping, running
    stopping, running = asyncio.get_running_loop(), asyncio.current_task()
    settings = load(port=0, log_level="debug", grace_s=1)
    log_to(Console(stderr=True), settings)
    app = create_app(Broken(), (), settings)
    await serve(app, settings, lambda url: threading.Thread(target=ask, args=(url,)).start())

try:
    asyncio.run(main())
except asyncio.CancelledError:
    pass
"""


@pytest.mark.parametrize("prompts", ["false", "true"])
def test_a_bug_s_traceback_is_on_the_console_without_its_words(prompts: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, SECRET],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=NEVER_S,
        check=True,
        env={"COLUMNS": "200", "TTS_SERVER_LOG_PROMPTS": prompts, "TTS_SERVER_DATA_DIR": str(tmp_path)},
    )
    assert done.stdout == "500\n"
    assert "Exception in ASGI application" in done.stderr
    assert "in healthy" in done.stderr
    assert "KeyError" in done.stderr
    assert (SECRET in done.stderr) is (prompts == "true")
