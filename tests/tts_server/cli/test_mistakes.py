"""Whatever is wrong with a command, a setting or a file: a sentence that names it, and an exit code."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tts_server.cli import main as cli
from tts_server.cli import serve as cli_serve
from tts_server.config import ENV_PREFIX, Settings

PYTHON = re.compile(r"Traceback|Errno|codec|Source|dictionary|instance|NoneType|\w+Error\b|__\w+__|<class")
NOWHERE = "http://127.0.0.1:9"
WRONG_VALUES: dict[str, list[str]] = {
    "port": ['"x"', "-1", "70000", "1.5", "[]"],
    "engine": ['"tgi"', "5", "[]"],
    "engine_args": ['"x"', "5", "[1]", "{ nosuch = 1 }"],
    "max_model_len": ['"x"', "0", "-5", "15"],
    "upstream": ["5", "[5]"],
    "prm": ["5", '"nosuch-kind:x"', '"judge,judge"'],
    "prm_backend": ['"tpu"', "5"],
    "prm_args": ['"x"', "5", "{ nosuch = 1 }"],
    "prm_max_model_len": ['"x"', "0"],
    "prm_reference": ['"perhaps"', "5"],
    "api_key_file": ["5", '"missing"', '"."'],
    "api_keys": ["5", '","', '"two words"'],
    "key_limits": ['"x"', "5", "{ nosuch = 1 }", "{ requests_per_minute = 0 }", '{ tokens_per_hour = "x" }'],
    "cors_origins": ["5", '["nosuch"]', '["http://a/path"]'],
    "max_body_bytes": ['"x"', "0"],
    "max_requests": ['"x"', "0", "1.5"],
    "max_live_samples": ['"x"', "0"],
    "max_waiting_samples": ['"x"', "0"],
    "data_dir": ["5", "[]"],
    "batch": ['"x"', "5", "{ nosuch = 1 }", "{ concurrency = 0 }", '{ max_lines = "x" }', "{ max_file_bytes = 1 }"],
    "traces": ['"some"', "5"],
    "traces_max_bytes": ['"x"', "0"],
    "traces_max_age_s": ['"x"', "0", "-1"],
    "max_request": ['"x"', "5", "{ nosuch = 1 }", "{ max_samples = 0 }", '{ deadline_s = "x" }'],
    "grace_s": ['"x"', "-1"],
    "log_level": ['"loud"', "5"],
    "log_format": ['"xml"', "5"],
    "log_prompts": ['"perhaps"', "5"],
    "policy": ["5", '"missing"', '"."'],
    "policy_force": ['"perhaps"', "true"],
    "presets": [
        '"x"',
        "5",
        "{ mine = 5 }",
        "{ mine = {} }",
        '{ mine = { strategy = "nosuch" } }',
        '{ mine = { strategy = "best_of_n", n = "x" } }',
        '{ mine = { strategy = "best_of_n", nosuch = 1 } }',
        '{ mine = { strategy = "best_of_n", budget = 5 } }',
        '{ mine = { strategy = "best_of_n", budget = { max_tokens = 0 } } }',
        '{ mine = { strategy = "best_of_n", prm = "nosuch" } }',
    ],
    "efforts": ['"x"', "5", '{ huge = "single" }', '{ low = "nosuch" }', "{ low = 5 }"],
    "default_preset": ["5", '"nosuch"'],
    "host": ["5"],
    "model": ["5"],
    "served_name": ["5"],
    "upstream_api_key": ["5"],
    "prm_upstream": ["5", '"nosuch"'],
    "prm_upstream_api_key": ["5"],
    "prm_separator": ["5"],
    "tool_parser": ["5", '"nosuch"'],
}
IN_VARIABLES = [
    *((name, "x") for name in ("PORT", "MAX_MODEL_LEN", "MAX_REQUESTS", "MAX_BODY_BYTES", "GRACE_S", "TRACES")),
    *((name, "x") for name in ("ENGINE", "PRM_BACKEND", "LOG_LEVEL", "LOG_FORMAT", "LOG_PROMPTS", "PRM_REFERENCE")),
    *((name, "x") for name in ("ENGINE_ARGS", "PRM_ARGS", "KEY_LIMITS", "BATCH", "MAX_REQUEST", "PRESETS", "EFFORTS")),
    *((name, "[]") for name in ("ENGINE_ARGS", "PRM_ARGS", "KEY_LIMITS", "BATCH", "MAX_REQUEST", "PRESETS", "EFFORTS")),
    *((name, "") for name in ("PORT", "MAX_REQUESTS", "GRACE_S", "ENGINE", "LOG_LEVEL", "LOG_PROMPTS")),
    ("BATCH__CONCURRENCY", "x"),
    ("BATCH__NOSUCH", "1"),
    ("MAX_REQUEST__MAX_SAMPLES", "0"),
    ("KEY_LIMITS__REQUESTS_PER_MINUTE", "-1"),
    ("CORS_ORIGINS", "nosuch"),
    ("API_KEYS", ","),
    ("API_KEY_FILE", "/nowhere"),
    ("POLICY", "/nowhere"),
    ("PROT", "1"),
    ("NOSUCH__MORE", "1"),
]
COMMANDS = [
    ("serve --port x", "--port"),
    ("serve --port 70000", "port"),
    ("serve --port", "--port"),
    ("serve --nosuch", "--nosuch"),
    ("serve extra", "extra"),
    ("serve --engine tgi", "engine"),
    ("serve --engine", "--engine"),
    ("serve --engine openai", "upstream"),
    ("serve --engine openai --upstream nosuch", "upstream"),
    ("serve --engine openai --upstream ftp://127.0.0.1", "upstream"),
    ("serve --engine openai --upstream http://127.0.0.1:x", "upstream"),
    ("serve --engine fake --prm nosuch-model", "prm"),
    ("serve --engine fake --prm /nowhere", "prm"),
    ("serve --engine fake --prm nosuch:/nowhere", "prm"),
    ("serve --engine fake --prm {tmp}", "prm"),
    ("serve --engine fake --prm-backend tpu", "prm_backend"),
    ("serve --engine fake --prm-backend http", "prm_upstream"),
    ("serve --engine fake --prm-upstream nosuch", "prm_upstream"),
    ("serve --engine fake --prm fake --prm-upstream http://127.0.0.1:9", "prm_upstream"),
    ("serve --engine fake --api-key-file /nowhere", "/nowhere"),
    ("serve --engine fake --api-key-file {tmp}", "api_key_file"),
    ("serve --engine fake --api-key-file {tmp}/empty", "holds no key"),
    ("serve --engine fake --api-key-file {tmp}/bytes", "UTF-8"),
    ("serve --engine fake --api-key-file {tmp}/words.toml", "words.toml"),
    ("serve --engine fake --max-model-len x", "--max-model-len"),
    ("serve --engine fake --max-model-len 1", "max_model_len"),
    ("serve --engine fake --policy /nowhere", "policy"),
    ("serve --engine fake --policy {tmp}", "policy"),
    ("serve --engine fake --policy {tmp}/empty", "policy"),
    ("serve --engine fake --policy {tmp}/bytes", "policy"),
    ("serve --engine fake --policy-force", "policy_force"),
    ("serve --log-level loud", "log_level"),
    ("serve --log-format xml", "log_format"),
    ("serve --config /nowhere", "/nowhere"),
    ("serve --config {tmp}", "no file"),
    ("serve --config {tmp}/bytes", "UTF-8"),
    ("serve --config {tmp}/words.toml", "words.toml"),
    ("chat --url nosuch", "base_url"),
    ("chat hi --url nosuch", "base_url"),
    ("chat hi --url ftp://127.0.0.1", "base_url"),
    ("chat hi --url http://127.0.0.1:x", "base_url"),
    ("chat hi --url {nowhere}", "127.0.0.1:9: Connection refused"),
    ("chat hi --url {nowhere} -o n", "--option"),
    ("chat hi --url {nowhere} --budget max_tokens", "--budget"),
    ("chat hi --url {nowhere} --temperature hot", "--temperature"),
    ("chat hi --url {nowhere} --max-tokens x", "--max-tokens"),
    ("chat hi --nosuch", "--nosuch"),
    ("strategies nosuch", "nosuch"),
    ("strategies --url nosuch", "base_url"),
    ("strategies --url {nowhere}", "127.0.0.1:9: Connection refused"),
    ("strategies single extra", "extra"),
    ("models nosuch", "nosuch"),
    ("models list extra", "extra"),
    ("models pull", "name"),
    ("models pull nosuch", "nosuch"),
    ("models pull ''", "catalog"),
    ("traces nosuch", "nosuch"),
    ("traces list --data-dir /nowhere", "data_dir"),
    ("traces list --data-dir {tmp}/empty", "data_dir"),
    ("traces list --data-dir {tmp}/spoiled", "database"),
    ("traces list --config /nowhere", "/nowhere"),
    ("traces list --config {tmp}/words.toml", "words.toml"),
    ("traces list --limit x", "--limit"),
    ("traces list --limit 0", "--limit"),
    ("traces show", "id"),
    ("traces show x --data-dir /nowhere", "data_dir"),
    ("traces show x --data-dir {tmp}/spoiled", "database"),
    ("traces export --limit 0", "--limit"),
    ("traces export --data-dir /nowhere", "data_dir"),
    ("traces export --data-dir {tmp}/spoiled", "database"),
    ("traces export --data-dir {tmp}/spoiled --out {tmp}", "{tmp}"),
    ("nosuch", "nosuch"),
    ("--nosuch", "--nosuch"),
]


@pytest.fixture(autouse=True)
def harmless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files with mistakes; and nothing is served where a mistake is not found."""

    async def serve(*_: object) -> None:
        return

    monkeypatch.setattr(cli_serve, "serve", serve)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TTS_SERVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").write_text("")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "words.toml").write_text("these are words")
    (tmp_path / "spoiled").mkdir()
    (tmp_path / "spoiled" / "traces.sqlite3").write_text("this is no database, but a text that is long enough" * 99)


def run(words: list[str], environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli.app, words, env=environment, input="")


def check(result: Result, named: str) -> None:
    """One sentence of ours, or typer's box about the usage."""
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    *progress, said = [line for line in result.stderr.splitlines() if line.strip()]
    if result.exit_code == 1:
        assert said.startswith("error: "), result.stderr
        assert all(re.match(r"\w.* · \d+ s$|\S+ (?:INFO|WARNING) ", line) for line in progress), result.stderr
    shown = said if result.exit_code == 1 else result.stderr
    assert named.lower() in shown.lower()
    assert not PYTHON.search(shown), shown


@pytest.mark.parametrize(("command", "named"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_wrong_command_is_named(command: str, named: str, tmp_path: Path) -> None:
    words = [word.strip("'").format(tmp=tmp_path, nowhere=NOWHERE) for word in command.split()]
    check(run(words), named.format(tmp=tmp_path))


@pytest.mark.parametrize(
    ("setting", "value"), [(setting, value) for setting, values in WRONG_VALUES.items() for value in values]
)
def test_a_wrong_value_in_the_file_is_named_by_its_setting(setting: str, value: str, tmp_path: Path) -> None:
    fake = {name: text for name, text in (("engine", '"fake"'), ("prm", '"fake"')) if name != setting}
    lines = [*(f"{name} = {text}" for name, text in fake.items()), f"{setting} = {value}"]
    (tmp_path / "server.toml").write_text("\n".join(lines))
    check(run(["serve", "--config", str(tmp_path / "server.toml")]), setting)


def test_every_setting_is_tried_with_a_wrong_value() -> None:
    assert set(WRONG_VALUES) == set(Settings.model_fields)


@pytest.mark.parametrize(("variable", "value"), IN_VARIABLES)
def test_a_wrong_value_in_the_environment_is_named_by_its_setting(variable: str, value: str) -> None:
    named = variable.partition("__")[0]
    given = ["serve"] if variable == "ENGINE" else ["serve", "--engine", "fake"]
    result = run(given, {ENV_PREFIX + variable: value})
    check(result, named)
