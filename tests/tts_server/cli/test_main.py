"""The command line, as a user types it."""

import json
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from patience import NEVER_S
from pydantic import SecretStr
from rich.console import Console
from serving import body
from typer.testing import CliRunner, Result

from tts_server.cli import main as cli
from tts_server.cli import serve as cli_serve
from tts_server.config import Settings

ROOT = Path(__file__).parents[3]


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.app, arguments, env=env)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tts_server.cli.main", *arguments]


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=NEVER_S, check=False)


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
                r'try: tts-server chat "Grace weighs .* in pounds\?" --strategy self_consistency .* --url \1\n',
                said,
            )
            assert ready, said
            answer = httpx.post(
                f"{ready[1]}/v1/chat/completions",
                json=body(tts={"strategy": "best_of_n"}),
                headers={"x-request-id": "mine"},
                timeout=NEVER_S,
            )
            assert answer.status_code == 200
            chat = ran("chat", "hi", "--url", ready[1])
            assert "You said: hi" in chat.stdout
            running.send_signal(signal.SIGTERM)
            assert running.wait(NEVER_S) == 0
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
        (
            ("--engine", "fake", "--api-key-file", "/nowhere"),
            "error: api_key_file: /nowhere cannot be read: No such file",
        ),
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
            httpx.post(
                f"{ready[0]}/v1/chat/completions", json=body(), headers={"x-request-id": "mine"}, timeout=NEVER_S
            )
            running.send_signal(signal.SIGTERM)
            assert running.wait(NEVER_S) == 0
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
    cli.fail("install one: pip install '.[vllm]' [/] " + "word " * 40)
    assert "'.[vllm]' [/] word" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said", "warned"),
    [
        (Settings(), "-o n=16 -o system_prompt=boxed --url http://h:1", False),
        (Settings(api_key_file=Path("keys")), "-o n=16 -o system_prompt=boxed --url http://h:1 --api-key …", False),
        (Settings(host="0.0.0.0"), "-o n=16 -o system_prompt=boxed --url http://h:1", True),
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
    cli_serve.say_ready("http://h:1", settings, "m", Console(stderr=True))
    shown = capsys.readouterr()
    assert shown.out.startswith("ready: m at http://h:1/v1 — ")
    assert shown.out.endswith(said + "\n")
    assert ("without API keys" in shown.err) is warned


def test_without_arguments_there_is_help() -> None:
    result = ran()
    assert "serve" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["tts_server.cli.main", "bench.cli"])
def test_both_commands_say_their_version(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", command, "--version"], cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510
    name = {"tts_server.cli.main": "tts-server", "bench.cli": "tts-bench"}[command]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} {version('tts-server')}\n", "")


def test_ctrl_c_while_the_command_is_imported_is_quiet() -> None:
    code = """
import os, signal, sys
from tts_server.__main__ import main

class Interrupting:
    def find_spec(self, name, *_):
        if name == "tts_server.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
