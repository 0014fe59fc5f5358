"""Files and batches with the plain openai package against a server as its user starts it, killed and started again."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from batching import jsonl, line
from patience import NEVER_S
from served import served


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_SERVER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def client(data_dir: Path) -> Iterator[openai.OpenAI]:
    with (
        served("--engine", "fake", "--prm", "fake") as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client,
    ):
        yield client


def waited(client: openai.OpenAI, id_: str) -> Any:
    """The batch when it has ended."""
    until = time.monotonic() + NEVER_S
    while time.monotonic() < until:
        batch = client.batches.retrieve(id_)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


def answers(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def test_the_openai_package_runs_a_batch(client: openai.OpenAI) -> None:
    questions = [line(f"q{i}", f"What is {i} + {i}?", tts={"strategy": "best_of_n", "n": 2}) for i in range(12)]
    data = jsonl([*questions, line("bad", temperature=9)])
    file = client.files.create(
        file=("eval.jsonl", data), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (file.object, file.filename, file.bytes, file.purpose) == ("file", "eval.jsonl", len(data), "batch")
    assert file.expires_at == file.created_at + 3600
    assert client.files.content(file.id).content == data
    assert client.files.retrieve(file.id) == file
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"set": "sums"},
    )
    assert (made.object, made.status, made.input_file_id) == ("batch", "validating", file.id)
    done = waited(client, made.id)
    assert done.status == "completed", done
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (13, 12, 1)
    assert done.metadata == {"set": "sums"}
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens > 0
    right = answers(client, done.output_file_id)
    assert [answer["custom_id"] for answer in right] == [f"q{i}" for i in range(12)]
    for answer in right:
        reply = openai.types.chat.ChatCompletion.model_validate(answer["response"]["body"])
        assert reply.choices[0].message.content
    (wrong,) = answers(client, done.error_file_id)
    assert wrong["custom_id"] == "bad"
    assert wrong["response"]["body"]["error"]["param"] == "temperature"
    assert [batch.id for batch in client.batches.list(limit=1)] == [made.id]
    assert {one.id for one in client.files.list()} == {file.id, done.output_file_id, done.error_file_id}
    assert [one.id for one in client.files.list(purpose="batch", order="asc", limit=1)] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_what_the_openai_package_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", b"no json\n"), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    failed = waited(client, made.id)
    assert failed.status == "failed"
    (error,) = failed.errors.data
    assert (error.code, error.line) == ("invalid_json_line", 1)
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="batch_none"):
        client.batches.retrieve("batch_none")
    with pytest.raises(openai.BadRequestError, match="failed"):
        client.batches.cancel(made.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("in.jsonl", b"x"), purpose="user_data")


LINES = 150


def stored(data_dir: Path) -> dict[int, bytes]:
    """What has been answered, as a server that was killed leaves it."""
    with sqlite3.connect(data_dir / "batches.sqlite3") as database:
        found = database.execute(
            "SELECT number, data FROM pieces JOIN batches ON file IN (output_file_id, error_file_id)"
        ).fetchall()
    database.close()
    assert len({number for number, _ in found}) == len(found)
    return dict(found)


def test_a_batch_outlives_a_server_that_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_SERVER_BATCH__CONCURRENCY", "3")
    flags = ("--engine", "fake", "--prm", "fake")
    batch_id, before = "", {}
    for at_least in (1, LINES // 3):
        with served(*flags) as (url, process):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            if not batch_id:
                file = client.files.create(
                    file=("in.jsonl", jsonl([line(f"q{i}") for i in range(LINES)])), purpose="batch"
                )
                batch_id = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                ).id
            while (counts := client.batches.retrieve(batch_id).request_counts) and counts.completed < at_least:
                pass
            process.kill()
            client.close()
            process.wait(NEVER_S)
        now = stored(data_dir)
        assert before.items() <= now.items()
        assert at_least <= len(now) < LINES
        before = now
    with served(*flags) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        done = waited(client, batch_id)
        assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", LINES, None)
        assert [one["custom_id"] for one in answers(client, done.output_file_id)] == [f"q{i}" for i in range(LINES)]
    # What was answered was not asked again.
    assert before.items() <= stored(data_dir).items()
