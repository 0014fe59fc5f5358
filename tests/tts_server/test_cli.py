"""The command line, as a user types it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from serving import body, serving
from typer.testing import CliRunner, Result

import strategies
from prm import FakePRM
from tts_server import cli
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.errors import UpstreamError

ROOT = Path(__file__).parents[2]


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.app, arguments, env=env)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tts_server.cli", *arguments]


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def asked(*arguments: str, **server: Any) -> Result:
    """`tts-server chat` against a server in another event loop."""

    async def main() -> Result:
        async with serving(**server) as client:
            return await asyncio.to_thread(run, "chat", *arguments, "--url", str(client.base_url))

    return asyncio.run(main())


def test_serve_says_one_line_when_it_is_ready_answers_and_ends_on_a_signal() -> None:
    with subprocess.Popen(
        command("serve", "--engine", "fake", "--prm", "fake", "--port", "0"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout
            said = running.stdout.readline()
            ready = re.fullmatch(
                r"ready: fake at (http://127\.0\.0\.1:\d+)/v1 — "
                r'try: tts-server chat "What is 17 \* 23\?" --strategy best_of_n --url \1\n',
                said,
            )
            assert ready, said
            answer = httpx.post(
                f"{ready[1]}/v1/chat/completions",
                json=body(tts={"strategy": "best_of_n"}),
                headers={"x-request-id": "mine"},
            )
            assert answer.status_code == 200
            chat = ran("chat", "hi", "--url", ready[1])
            assert "You said: hi" in chat.stdout
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            assert running.stdout.read() == ""
            assert running.stderr
            # Nobody's screen is behind it: each record is one line.
            (line,) = [line for line in running.stderr if "best_of_n" in line]
            assert re.fullmatch(r"\S+ INFO     \[mine\] chatcmpl-\w+ trace-\w+: best_of_n, .* s\n", line)
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "70000"), "error: port: Input should be less than or equal to 65535"),
        (("--engine", "tgi"), "error: engine: Input should be 'auto', 'vllm', 'openai', 'transformers' or 'fake'"),
        (("--engine", "fake", "--prm", "big"), "error: prm: Cannot find the model 'big': "),
        (("--engine", "openai"), "error: upstream: the engine 'openai' needs the upstream's base URL"),
        (("--engine", "fake", "--api-key-file", "/nowhere"), "error: api_key_file: [Errno 2] No such file"),
        (("--config", "/nowhere.toml"), "error: the configuration file /nowhere.toml does not exist"),
    ],
)
def test_serve_with_a_mistake_exits_1_with_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_serve_logs_json_where_it_is_asked_to() -> None:
    with subprocess.Popen(
        command("serve", "--engine", "fake", "--prm", "none", "--port", "0", "--log-format", "json"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            assert running.stdout
            ready = re.search(r"http://\S+?(?=/v1)", running.stdout.readline())
            assert ready
            httpx.post(f"{ready[0]}/v1/chat/completions", json=body(), headers={"x-request-id": "mine"})
            running.send_signal(signal.SIGTERM)
            assert running.wait(20) == 0
            assert running.stderr
            lines = [json.loads(line) for line in running.stderr]
            (mine,) = [line["message"] for line in lines if line.get("request_id") == "mine"]
            assert ": single, 1 samples, " in mine
        finally:
            running.kill()


def test_serve_with_an_unknown_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("prot = 1\n")
    result = run("serve", "--engine", "fake", "--config", str(tmp_path / "server.toml"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown key 'prot'; known: host, port, ")
    result = run("serve", "--engine", "fake", env={"TTS_SERVER_PROT": "1"})
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown environment variable TTS_SERVER_PROT; known: ")


def test_serve_with_a_bad_preset_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("[presets.mine]\nstrategy = 'best_off_n'\n")
    result = run("serve", "--engine", "fake", "--config", str(tmp_path / "server.toml"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: presets.mine.strategy: unknown strategy 'best_off_n'; known: ")


def test_an_error_keeps_what_stands_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    cli.fail("install one: pip install 'tts-server[vllm]' [/] " + "word " * 40)
    assert "'tts-server[vllm]' [/] word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said", "warned"),
    [
        (Settings(), "--strategy best_of_n --url http://h:1", False),
        (Settings(api_key_file=Path("keys")), "--strategy best_of_n --url http://h:1 --api-key …", False),
        (Settings(host="0.0.0.0"), "--strategy best_of_n --url http://h:1", True),
        (Settings(host="0.0.0.0", api_key_file=Path("keys")), "--api-key …", False),
        (Settings(host="0.0.0.0", api_keys=SecretStr("k")), "--api-key …", False),
        (Settings(host="::"), "--url http://h:1", True),
        (Settings(host="10.0.0.7"), "--url http://h:1", True),
        (Settings(host="my.host"), "--url http://h:1", True),
        *((Settings(host=host), "--url http://h:1", False) for host in ("localhost", "127.0.0.2", "::1")),
    ],
)
def test_the_ready_line_fits_the_server(
    settings: Settings, said: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.say_ready("http://h:1", settings, "m")
    shown = capsys.readouterr()
    assert shown.out.startswith("ready: m at http://h:1/v1 — ")
    assert shown.out.endswith(said + "\n")
    assert ("without API keys" in shown.err) is warned


def test_chat_shows_progress_the_answer_as_it_is_and_what_it_cost() -> None:
    text = "One  two [bold]three[/bold]\n\n" + "long " * 40 + "\n\n\\boxed{391}"
    result = asked(
        "17 * 23?", "--strategy", "best_of_n", "-o", "n=3", engine=FakeEngine(lambda r: text), prms=[FakePRM()]
    )
    assert result.exit_code == 0, result.output
    assert "3 samples are under way" in result.stdout
    assert text in result.stdout
    assert re.search(r"answer +391 *\n", result.stdout)
    assert re.search(r"votes +391 ×3 *\n", result.stdout)
    assert re.search(r"tokens +\d+ generated, \d+ scored *\n", result.stdout)


def recorded(seen: list[FakeRequest]) -> Callable[[FakeRequest], str]:
    def script(request: FakeRequest) -> str:
        seen.append(request)
        return "ok"

    return script


def test_chat_sends_what_was_typed() -> None:
    seen: list[FakeRequest] = []
    result = asked(
        "what?",
        "--strategy",
        "self_consistency",
        "--option",
        "n=2",
        "-o",
        "system_prompt=Be brief.",
        "--max-tokens",
        "5",
        engine=FakeEngine(recorded(seen)),
    )
    assert result.exit_code == 0, result.output
    assert len(seen) == 2
    assert [m["content"] for m in seen[0].messages] == ["Be brief.", "what?"]
    assert seen[0].sampling.max_tokens == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strategy", "best"), "error: 400: unknown strategy 'best'; known: "),
        (("-o", "n"), "error: an option is written name=value, got 'n'"),
        (("--strategy", "best_of_n", "-o", "n=x"), "error: 400: tts.n: Input should be a valid integer"),
    ],
)
def test_chat_with_a_mistake_says_it_and_exits_1(arguments: tuple[str, ...], said: str) -> None:
    result = asked("hi", *arguments, prms=[FakePRM()])
    assert result.exit_code == 1
    assert result.stderr.startswith(said)


def test_chat_uses_the_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alpha\n")
    server = {"settings": Settings(api_key_file=tmp_path / "keys")}
    assert asked("hi", "--api-key", "alpha", **server).exit_code == 0
    result = asked("hi", "--api-key", "beta", **server)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: 401: No valid API key.")


def test_chat_says_when_a_stream_breaks() -> None:
    class Breaking(FakeEngine):
        async def generate(self, *args: Any, **kwargs: Any) -> Any:
            async for chunk in super().generate(*args, **kwargs):
                yield chunk
                raise UpstreamError("the connection broke")

    result = asked("hi", engine=Breaking())
    assert result.exit_code == 1
    assert result.stderr == "error: the connection broke\n"


def test_chat_without_a_server_says_how_to_start_one() -> None:
    for url in ("http://127.0.0.1:9", "nonsense"):
        result = run("chat", "hi", "--url", url)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: no answer from {url}: ")
        assert "start it with: make serve" in result.stderr


def test_strategies_lists_every_one_with_its_options() -> None:
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(cli.app, ["strategies"])
    assert result.exit_code == 0
    rows = {m[1]: m[0] for m in re.finditer(r"│ (\w+) +│.*", result.stdout)}
    for name, entry in strategies.registry().items():
        assert entry.description in rows[name]
        assert all(option in rows[name] for option in entry.options.model_fields)


def test_without_arguments_there_is_help() -> None:
    result = ran()
    assert "serve" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
