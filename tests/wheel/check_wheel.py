"""The wheel as its users have it: alone, with the newest releases of what it needs and nothing of this checkout.

`make test-wheel` runs this; it needs a package index, so `make test` does not.
"""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from batching import jsonl, line
from declared import EXTRAS, ROOT, WHERE_INSTALLED, declared, distribution, owner
from patience import NEVER_S
from served import served
from serving import QUESTION
from wheels import PACKAGES, built

CHAT = {"model": "fake", "messages": QUESTION}
SDK = """
import asyncio, sys
from tts_server.client import AsyncClient, BestOfN, Client, Delta, Final

async def later(url: str) -> None:
    async with AsyncClient(url, model="fake") as client:
        print((await client.chat("What is 2 + 2?", tts="single")).text)

with Client(sys.argv[1], model="fake") as client:
    result = client.chat("What is 2 + 2?", tts=BestOfN(n=4))
    print(result.text, result.usage.completion_tokens)
    with client.stream("What is 2 + 2?", tts="self_consistency") as stream:
        print([type(event).__name__ for event in stream if isinstance(event, (Delta, Final))][-1])
asyncio.run(later(sys.argv[1]))
"""
USER = """
from tts_server.client import BestOfN, ChatResult, Client
from strategies.core.contracts import Candidate
from prm import StepScores

def ask(client: Client, question: str) -> ChatResult:
    return client.chat(question, tts=BestOfN(n=4))

def score(candidate: Candidate) -> float | None:
    return candidate.score

with Client("http://127.0.0.1:8000", model="m") as client:
    reveal_type(ask(client, "?").text)
    ask(client, "?").txt
    BestOfN(n="four")
    print(StepScores)
"""
IMPORT_ALL = """
import importlib, json, pkgutil, sys
missing = {}
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing[module.name] = error.name
print(json.dumps(missing))
"""


class Environment:
    """An empty virtual environment with the wheel in it, and a directory to run its programs in."""

    def __init__(self, directory: Path, wheel: Path) -> None:
        self._programs = directory / "environment" / "bin"
        venv.create(directory / "environment", with_pip=True)
        self.python = self._programs / "python"
        self.place = directory / "elsewhere"
        self.place.mkdir()
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TTS_", "MYPY"))}
        self.env = {**ours, "COLUMNS": "200"}
        for name in ("DATA_DIR", "CACHE"):
            self.env[f"TTS_SERVER_{name}"] = str(directory / name.lower())
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", str(wheel)]
        done = self.run("python", *install)
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [str(self._programs / program), *arguments]
        return subprocess.run(
            command, cwd=self.place, env=self.env | env, capture_output=True, text=True, timeout=NEVER_S, check=False
        )

    def serve(self, *arguments: str) -> Any:
        command = (str(self._programs / "tts-server"),)
        return served(*arguments, command=command, cwd=self.place, env=self.env, timeout_s=NEVER_S)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    directory = tmp_path_factory.mktemp("wheel")
    return Environment(directory, built(directory))


@pytest.fixture(scope="module", params=["fake", "openai"])
def url(environment: Environment, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with the scripted engine, and one whose upstream it is."""
    with environment.serve("--engine", "fake", "--prm", "fake") as (fake, _):
        if request.param == "fake":
            yield fake
            return
        environment.env["TTS_SERVER_DATA_DIR"] += "-2"
        with environment.serve("--engine", "openai", "--upstream", f"{fake}/v1", "--prm", "fake") as (relay, _):
            yield relay


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=NEVER_S) as client:
        yield client


def test_a_chat_and_a_stream_are_answered(client: httpx.Client) -> None:
    reply = client.post("/v1/chat/completions", json=CHAT | {"tts": {"strategy": "best_of_n", "n": 4}})
    assert reply.status_code == 200, reply.text
    assert reply.json()["tts"]["samples"] == 4
    stream = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


def test_a_batch_comes_to_its_end(client: httpx.Client) -> None:
    lines = jsonl([line(f"q{i}", tts={"strategy": "best_of_n", "n": 2}) for i in range(5)])
    sent = client.post("/v1/files", files={"file": ("in.jsonl", lines)}, data={"purpose": "batch"})
    assert sent.status_code == 200, sent.text
    order = {"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = client.post("/v1/batches", json=order)
    assert made.status_code == 200, made.text
    batch, until = made.json(), time.monotonic() + NEVER_S
    while batch["status"] not in ("completed", "failed", "expired") and time.monotonic() < until:
        time.sleep(0.1)
        batch = client.get(f"/v1/batches/{batch['id']}").json()
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 5), batch
    answers = client.get(f"/v1/files/{batch['output_file_id']}/content").text
    assert len(answers.splitlines()) == 5


def test_metrics_name_the_endpoints(client: httpx.Client) -> None:
    client.post("/v1/chat/completions", json=CHAT)
    client.get("/v1/batches")
    client.get("/v1/files/none")
    text = client.get("/metrics").text
    for endpoint in ("/v1/chat/completions", "/v1/batches", "/v1/files/{file_id}"):
        assert f'endpoint="{endpoint}"' in text
    assert 'endpoint="other"' not in text


def test_the_client_of_the_package_speaks_to_it(environment: Environment, url: str) -> None:
    done = environment.run("python", "-c", SDK, url)
    assert done.returncode == 0, done.stderr
    assert "\nFinal\n" in done.stdout


def test_stored_samples_are_rescored(environment: Environment) -> None:
    run = str(ROOT / "bench" / "results" / "gsm8k" / "beta16")
    done = environment.run("tts-bench", "rescore", run)
    assert done.returncode == 0, done.stderr
    assert "Rescored: " in done.stdout


def test_a_user_s_program_is_type_checked(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(environment.python), "user.py"]
    done = subprocess.run(mypy, cwd=tmp_path, env=environment.env, capture_output=True, text=True, check=False)
    found = [text for text in done.stdout.splitlines() if "user.py:" in text]
    wanted = ('Revealed type is "str"', '"ChatResult" has no attribute "txt"', 'Argument "n" to "BestOfN" has')
    assert len(found) == len(wanted), done.stdout + done.stderr
    assert all(sentence in text for sentence, text in zip(wanted, found, strict=True)), done.stdout


def test_every_module_imports_or_lacks_what_its_extra_declares(environment: Environment) -> None:
    done = environment.run("python", "-W", "error", "-c", IMPORT_ALL, *PACKAGES)
    assert done.returncode == 0, done.stderr
    for module, lacks in json.loads(done.stdout).items():
        file = module.replace(".", "/") + ".py"
        extra, needs = owner(file), distribution(lacks)
        assert (file, needs) in WHERE_INSTALLED or (extra and needs in declared(EXTRAS[extra])), (module, lacks)


@pytest.mark.parametrize(
    ("program", "arguments", "env", "sentence"),
    [
        ("tts-server", ["serve"], {}, "make install"),
        ("tts-server", ["serve", "--engine", "transformers"], {}, "pip install '.[transformers]'"),
        ("tts-server", ["serve", "--engine", "vllm"], {}, "pip install '.[vllm]'"),
        ("tts-server", ["serve", "--engine", "fake"], {"OTEL_TRACES_EXPORTER": "otlp"}, "pip install '.[otel]'"),
        ("tts-server", ["models", "pull", "smollm2-135m-instruct"], {}, "pip install '.[transformers]'"),
        ("tts-bench", ["report", str(ROOT / "bench/results/gsm8k/greedy"), "--out", "page"], {}, "'.[bench]'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_is_not_installed_is_told_in_a_sentence(
    environment: Environment, program: str, arguments: list[str], env: dict[str, str], sentence: str
) -> None:
    done = environment.run(program, *arguments, **env, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
