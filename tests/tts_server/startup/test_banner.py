"""What a server says of itself when it has started."""

import io
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from prm import FakePRM
from tts_server.app import create_app
from tts_server.config import KeyLimits, RequestLimit, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.engines.replicated import ReplicatedEngine
from tts_server.startup.banner import facts, tell


def test_it_tells_the_model_the_engine_the_limits_and_the_keys() -> None:
    settings = Settings(
        max_live_samples=9,
        max_request=RequestLimit(max_samples=8, max_tokens=1000, deadline_s=2.5),
        api_keys=SecretStr("ann:secret-1,ann:secret-2,bob:secret-3"),
        key_limits=KeyLimits(requests_per_minute=1),
        data_dir=Path("kept"),
    )
    told = facts(create_app(FakeEngine(max_model_len=4096, slots=8), [FakePRM()], settings))
    assert told == {
        "model": "fake, 4096 tokens of context",
        "engine": "fake, grows 8 samples a step",
        "reward models": "fake",
        "at once": "9 samples, 1024 requests; 4096 samples may wait",
        "a request": "at most 8 samples, 1000 generated tokens, 2.5 seconds, 32 MiB",
        "keys": "3, of 2 owners",
        "traces": "redacted, in kept",
        "at the end": "30 s for what is under way",
    }
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("host", "said"),
    [("127.0.0.1", "none: open to this machine"), ("0.0.0.0", "none: open to whoever reaches 0.0.0.0")],
)
def test_without_keys_it_says_who_is_let_in(host: str, said: str) -> None:
    told = facts(create_app(FakeEngine(), (), Settings(host=host, traces="off")))
    assert (told["keys"], told["reward models"], told["engine"], told["traces"]) == (said, "none", "fake", "off")


def test_it_tells_every_upstream() -> None:
    engine = ReplicatedEngine(["http://a:8000/v1", "http://b:8000/v1"], name="m")
    assert facts(create_app(engine, (), Settings()))["engine"] == "openai, at http://a:8000, http://b:8000"


@pytest.mark.parametrize("terminal", [True, False])
def test_it_is_a_table_on_a_terminal_and_lines_elsewhere(terminal: bool) -> None:
    app = create_app(FakeEngine(), (), Settings())
    text = io.StringIO()
    tell(app, Console(file=text, force_terminal=terminal, width=200))
    lines = text.getvalue().splitlines()
    assert len(lines) == len(facts(app))
    assert all(value in text.getvalue() for value in facts(app).values())
    assert ("\x1b" in text.getvalue()) is terminal


def test_where_logs_are_json_it_is_one_of_them(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(FakeEngine(), (), Settings(log_format="json"))
    text = io.StringIO()
    with caplog.at_level(logging.INFO, "tts_server"):
        tell(app, Console(file=text))
    assert text.getvalue() == ""
    assert caplog.messages[-1].startswith("started: model: fake, 32768 tokens of context; engine: fake; ")
