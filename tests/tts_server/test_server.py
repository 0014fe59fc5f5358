"""The process from start to the last drained request, as a process of its own."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from patience import NEVER_S

from tts_server.app import create_app
from tts_server.config import ConfigError, Settings
from tts_server.engines.fake import FakeEngine
from tts_server.server import serve

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
SCRIPT = """
import asyncio, sys
from tts_server.app import create_app
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.server import serve

class Slow(FakeEngine):
    async def start(self):
        print("starting", flush=True)
        await asyncio.sleep(float(sys.argv[3]))

    async def close(self):
        print("closed", self.live, flush=True)

engine = Slow(token_s=float(sys.argv[1]))
settings = Settings(port=0, grace_s=float(sys.argv[2]))
asyncio.run(serve(create_app(engine, (), settings), settings, lambda url: print("ready", url, flush=True)))
"""


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def slow(token_s: float, grace_s: float, start_s: float = 0) -> tuple[str, ...]:
    return "-c", SCRIPT, str(token_s), str(grace_s), str(start_s)


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    said = running.stdout.readline().strip()
    if not said and running.wait(NEVER_S) and running.stderr:
        raise AssertionError(running.stderr.read())
    return said


def url_of(running: subprocess.Popen[str]) -> str:
    assert line(running) == "starting"
    word, url = line(running).split()
    assert word == "ready"
    return url


class Asked(threading.Thread):
    """One streamed request that is under way once its first chunk came."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.begun = threading.Event()
        self.text = ""
        self.error: Exception | None = None
        self.start()
        assert self.begun.wait(NEVER_S)

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", self._url + "/v1/chat/completions", json={**CHAT, "stream": True}, timeout=NEVER_S
            ) as response:
                for text in response.iter_text():
                    self.text += text
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_end_and_takes_no_new_ones(number: signal.Signals) -> None:
    with process(*slow(0.3, 60)) as running:
        url = url_of(running)
        asked = Asked(url)
        assert httpx.get(url + "/ready", timeout=NEVER_S).status_code == 200
        running.send_signal(number)
        while (ready := httpx.get(url + "/ready", timeout=NEVER_S)).status_code == 200:
            pass
        assert ready.status_code == 503
        assert ready.json()["error"]["message"] == "The server is going down."
        assert httpx.get(url + "/health", timeout=NEVER_S).status_code == 200
        refused = httpx.post(url + "/v1/chat/completions", json=CHAT, timeout=NEVER_S)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert refused.headers["retry-after"] == "5"
        asked.join(NEVER_S)
        assert asked.error is None
        assert '"finish_reason":"stop"' in asked.text
        assert asked.text.endswith("data: [DONE]\n\n")
        assert line(running) == "closed 0"
        assert running.wait(NEVER_S) == 0


def test_a_search_that_does_not_end_in_its_grace_answers_with_what_it_has() -> None:
    with process(*slow(1, 4)) as running:
        asked = Asked(url_of(running))
        while '"content"' not in asked.text:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        asked.join(NEVER_S)
        assert asked.error is None
        assert '"finish_reason":"length"' in asked.text
        assert '"stop_reason":"deadline"' in asked.text
        assert asked.text.endswith("data: [DONE]\n\n")
        assert line(running) == "closed 0"
        assert running.wait(NEVER_S) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with process(*slow(0.5, 60)) as running:
        url = url_of(running)
        asked = Asked(url)
        running.send_signal(signal.SIGTERM)
        # Two signals of one kind that are pending at once are one.
        while httpx.get(url + "/ready", timeout=NEVER_S).status_code == 200:
            pass
        running.send_signal(signal.SIGTERM)
        assert line(running) == "closed 0"
        assert running.wait(NEVER_S) == 0
        asked.join(NEVER_S)
        assert "[DONE]" not in asked.text
        assert running.stderr
        assert running.stderr.read() == "ending: 1 request, at most 60 s; again aborts\naborting: 1 request\n"


def test_what_does_not_end_in_its_grace_is_told_so() -> None:
    with process(*slow(5, 0.4)) as running, ThreadPoolExecutor() as pool:
        url = url_of(running)
        asked = pool.submit(httpx.post, url + "/v1/chat/completions", json=CHAT, timeout=NEVER_S)
        while not re.search(r"^tts_live_samples\{.*\} [1-9]", httpx.get(url + "/metrics", timeout=NEVER_S).text, re.M):
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        response = asked.result(NEVER_S)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"]["code"] == "engine_unavailable"
        assert line(running) == "closed 0"
        assert running.wait(NEVER_S) == 0
        assert running.stderr
        assert "Traceback" not in running.stderr.read()


def test_a_signal_while_the_model_loads_ends_it() -> None:
    with process(*slow(0, 1, start_s=60)) as running:
        assert line(running) == "starting"
        running.send_signal(signal.SIGTERM)
        assert line(running) == "closed 0"
        assert running.wait(NEVER_S) != 0
        assert running.stdout
        assert running.stdout.read() == ""


def test_a_port_that_is_taken_is_an_error() -> None:
    with process(*slow(0, 1)) as running:
        port = url_of(running).rpartition(":")[2]
        command = ["-m", "tts_server.cli.main", "serve", "--engine", "fake", "--port", port]
        other = subprocess.run(
            [sys.executable, *command],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=NEVER_S,
            check=False,
        )
        assert other.returncode == 1
        assert "Address already in use" in other.stderr
        assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    "error",
    [
        ImportError("The transformers engine needs PyTorch"),
        OSError("There is no model at x."),
        ValueError("The config of 'x' has no max_position_embeddings: set max_model_len."),
    ],
)
def test_an_engine_that_cannot_start_ends_the_start_with_a_sentence(error: Exception) -> None:
    class Broken(FakeEngine):
        async def start(self) -> None:
            raise error

    engine, settings = Broken(), Settings(port=0)
    with pytest.raises(ConfigError, match=f"^engine: {re.escape(str(error))}$"):
        asyncio.run(serve(create_app(engine, (), settings), settings, lambda url: None))
