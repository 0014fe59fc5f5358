"""Without a hub: how its data set becomes problems, and how fast it is given up."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import tasks
from bench.tasks import Problem, TaskError, hub, load

ROWS = [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(3)]


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/api/datasets/openai/gsm8k" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tasks.DATA_VARIABLE, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that is there."""
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def datasets(monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


@pytest.mark.usefixtures("endpoint")
def test_problems_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((args, options))
        return ROWS

    datasets(monkeypatch, load_dataset)
    task = load("gsm8k", split="train", limit=2)
    assert asked == [(("openai/gsm8k", "main"), {"split": "train"})]
    assert task.source == "hub:openai/gsm8k"
    assert task.problems == tuple(Problem(f"train/{n}", f"{n}?", str(n), solution=f"#### {n}") for n in range(2))


@pytest.mark.usefixtures("endpoint")
def test_a_record_of_the_hub_is_named_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets(monkeypatch, lambda *_, **__: [*ROWS, {"question": "?"}])
    with pytest.raises(TaskError, match=r"hub:openai/gsm8k test\[3\]: no field 'answer'"):
        load("gsm8k")


@pytest.mark.usefixtures("endpoint")
def test_what_the_hub_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("Couldn't find any data file")

    datasets(monkeypatch, load_dataset)
    with pytest.raises(TaskError, match=r"Couldn't find any data file.*gsm8k_test.jsonl.*TTS_BENCH_DATA"):
        load("gsm8k")


@pytest.mark.usefixtures("endpoint")
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=r"pip install '\.\[bench\]'"):
        load("gsm8k")


@pytest.mark.usefixtures("endpoint")
def test_the_hub_has_what_the_directory_of_the_environment_has_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(tasks.DATA_VARIABLE, str(tmp_path))
    datasets(monkeypatch, lambda *_, **__: ROWS)
    assert load("gsm8k").source == "hub:openai/gsm8k"
    (tmp_path / "gsm8k_test.jsonl").write_text('{"question": "?", "answer": "#### 1"}\n')
    assert load("gsm8k").source == "gsm8k_test.jsonl"
    with pytest.raises(TaskError, match="there is no file"):
        load("gsm8k", data=tmp_path / "elsewhere")


def test_a_hub_that_is_not_there_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(TaskError, match=r"the hub http://127.0.0.1:\d+ cannot be reached.*put math500.jsonl into"):
            load("math500")


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "REACH_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TaskError, match="cannot be reached"):
            load("aime24")


@pytest.mark.usefixtures("endpoint")
def test_a_data_set_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LOAD_S", 0.1)
    leave = threading.Event()
    datasets(monkeypatch, lambda *_, **__: leave.wait())
    with pytest.raises(TaskError, match=r"cannot be read: no answer in 0.1 s\. To do without it"):
        load("gsm8k")
    leave.set()


def test_the_cache_is_used_if_the_user_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets(monkeypatch, lambda *_, **__: ROWS)
    assert load("gsm8k").size == 3


@pytest.mark.usefixtures("endpoint")
def test_the_library_waits_only_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hub.TIMEOUTS:
        monkeypatch.delenv(name, raising=False)
    seen = {}

    def load_dataset(*_: Any, **__: Any) -> list[dict[str, str]]:
        seen.update({name: os.environ[name] for name in hub.TIMEOUTS})
        return ROWS

    datasets(monkeypatch, load_dataset)
    load("gsm8k")
    assert seen == dict(hub.TIMEOUTS)
