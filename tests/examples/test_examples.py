"""The packages of `examples/`, installed as their README says and used from there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import NEVER_S
from served import served

from bench.stored.records import read_records

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PACKAGES = ("strategy", "reward_model", "task")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds them, built from copies: a build leaves files where its sources lie."""
    directory = tmp_path_factory.mktemp("examples")
    copies = [shutil.copytree(EXAMPLES / name, directory / name) for name in PACKAGES]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(directory / "site"), *map(str, copies)], check=True
    )
    path = os.pathsep.join([str(directory / "site"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def client(env: dict[str, str]) -> Iterator[httpx.Client]:
    with (
        served("--engine", "fake", "--prm", "arithmetic", "--log-level", "warning", env=env) as (url, _),
        httpx.Client(base_url=url, timeout=NEVER_S) as client,
    ):
        yield client


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_strategy_is_listed_and_stops_when_samples_agree(client: httpx.Client) -> None:
    (listed,) = [s for s in client.get("/v1/strategies").json()["data"] if s["id"] == "first_to_agree"]
    assert {"n", "votes", "round_size"} <= listed["options"]["properties"].keys()
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    tts = post(
        client,
        "/v1/chat/completions",
        model="fake",
        messages=messages,
        tts={"strategy": "first_to_agree", "n": 32, "votes": 2, "round_size": 2, "return_candidates": True},
    )["tts"]
    assert tts["samples"] == len(tts["candidates"]) < 32
    assert max(vote["count"] for vote in tts["votes"]) >= 2
    assert tts["votes"][0]["answer"] == tts["answer"]


def test_the_strategy_ends_with_its_last_sample(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    tts = post(
        client,
        "/v1/chat/completions",
        model="fake",
        messages=messages,
        tts={"strategy": "first_to_agree", "n": 5, "votes": 200},
    )["tts"]
    assert tts["samples"] == 5


def test_the_reward_model_recomputes_equations(client: httpx.Client) -> None:
    steps = ["She has two bags.", "2 * 3 = 6 apples.", "6 + 1 = 8 in all.", "The answer is 8.", "10 / 4 = 2.5", "1/0=1"]
    scored = post(client, "/v1/prm/score", prm="arithmetic", question="How many apples?", steps=steps)
    assert scored["scores"] == [0.5, 0.9, 0.1, 0.1, 0.1, 0.1]


def test_the_task_is_run(client: httpx.Client, env: dict[str, str], tmp_path: Path) -> None:
    run = ["run", "--task", "percentages", "--data", str(EXAMPLES / "task"), "--strategy", "first_to_agree", "--n", "4"]
    command = [sys.executable, "-m", "bench.cli", *run, "--url", str(client.base_url), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert done.returncode == 0, done.stderr
    records = list(read_records(tmp_path / "run"))
    assert len(records) == 10
    assert {record.gold for record in records} >= {"60", "1380", "28"}


def test_a_task_without_a_hub_asks_for_its_directory(env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.cli", "run", "--task", "percentages", "--out", str(tmp_path / "run")]
    env = {name: value for name, value in env.items() if name != "TTS_BENCH_DATA"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert done.returncode == 1
    assert "percentages is on no hub; name the directory of its files by --data or TTS_BENCH_DATA" in done.stderr
