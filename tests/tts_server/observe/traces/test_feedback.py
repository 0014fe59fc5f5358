"""What clients say of answers: over HTTP, in the trace, on the disk, and to the policy."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from searching import world
from serving import ask, serving

from prm import FakePRM
from strategies.allocation.policy_table import Cell, Pilot, Policy, Seconds, Tokens, write
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.observe.traces.database import FILE


@asynccontextmanager
async def keeping(
    directory: Path, headers: dict[str, str] | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    kept = Settings(data_dir=directory, **{"traces": "full", **settings})
    async with serving(FakeEngine(world()), [FakePRM()], kept, headers) as client:
        yield client


async def searched(client: httpx.AsyncClient) -> str:
    """The id of a new trace."""
    answer = (await ask(client, tts={"strategy": "best_of_n", "n": 2})).raise_for_status().json()
    trace: str = answer["tts"]["trace_id"]
    return trace


async def say(client: httpx.AsyncClient, trace: str, **fields: Any) -> httpx.Response:
    return await client.post(f"/v1/traces/{trace}/feedback", json=fields)


async def told(client: httpx.AsyncClient, trace: str) -> Any:
    return (await client.get(f"/v1/traces/{trace}")).raise_for_status().json()["feedback"]


@pytest.mark.parametrize(
    "said", [{"correct": True}, {"correct": False, "comment": "It is 5."}, {"score": 0.25}, {"score": 1}, {"score": 0}]
)
def test_it_stands_in_the_trace(tmp_path: Path, said: dict[str, Any]) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            trace = await searched(client)
            assert await told(client, trace) is None
            answer = (await say(client, trace, **said)).raise_for_status().json()
            assert (answer.pop("object"), answer.pop("trace_id")) == ("trace.feedback", trace)
            assert answer == {"correct": None, "score": None, "comment": None, "created": answer["created"]} | said
            assert await told(client, trace) == answer
            lines = (await client.get("/v1/traces", params={"format": "jsonl"})).text
            assert '"feedback":{' in lines

    asyncio.run(main())


def test_the_last_word_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            trace = await searched(client)
            for correct in (True, False):
                (await say(client, trace, correct=correct)).raise_for_status()
            assert (await told(client, trace))["correct"] is False

    asyncio.run(main())


def test_a_redacted_trace_keeps_no_comment(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, traces="redacted") as client:
            trace = await searched(client)
            answer = (await say(client, trace, correct=True, comment="what I wrote")).raise_for_status().json()
            assert (answer["correct"], answer["comment"]) == (True, None)
            assert (await told(client, trace))["comment"] is None

    asyncio.run(main())
    assert all(b"what I wrote" not in file.read_bytes() for file in tmp_path.glob("traces*"))


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "correct"),
        ({"correct": None}, "correct"),
        ({"correct": True, "score": 1.0}, "correct"),
        ({"correct": "yes"}, "correct"),
        ({"correct": 1}, "correct"),
        ({"score": 1.5}, "score"),
        ({"score": -0.1}, "score"),
        ({"score": "0.5"}, "score"),
        ({"score": True}, "score"),
        ({"correct": True, "comment": "x" * 2001}, "comment"),
        ({"correct": True, "comment": 7}, "comment"),
        ({"correct": True, "rating": 5}, "rating"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, said: dict[str, Any], field: str) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            trace = await searched(client)
            refused = await say(client, trace, **said)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == field
            assert field in refused.json()["error"]["message"]
            assert await told(client, trace) is None

    asyncio.run(main())


def test_a_trace_that_is_not_there_is_a_404(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            assert (await say(client, "trace-none", correct=True)).status_code == 404
            await searched(client)
            assert (await say(client, "trace-none", correct=True)).status_code == 404

    asyncio.run(main())


def test_somebody_else_s_trace_is_a_404(tmp_path: Path) -> None:
    async def main() -> None:
        keys = {"api_keys": "sk-one-111111111111,sk-two-222222222222"}
        async with keeping(tmp_path, {"authorization": "Bearer sk-one-111111111111"}, **keys) as client:
            trace = await searched(client)
            other = {"authorization": "Bearer sk-two-222222222222"}
            refused = await client.post(f"/v1/traces/{trace}/feedback", json={"correct": True}, headers=other)
            assert refused.status_code == 404
            assert await told(client, trace) is None
            assert (await say(client, trace, correct=True)).status_code == 200

    asyncio.run(main())


def test_a_server_that_keeps_no_traces_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, traces="off") as client:
            refused = await say(client, "trace-1", correct=True)
            assert refused.status_code == 404
            assert "keeps no traces" in refused.json()["error"]["message"]

    asyncio.run(main())


def test_a_disk_that_somebody_holds_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_server.observe.traces.feedback.WRITE_TIMEOUT_S", 0.05)

    async def main() -> None:
        async with keeping(tmp_path) as client:
            trace = await searched(client)
            (await say(client, trace, correct=True)).raise_for_status()
            with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                refused = await say(client, trace, correct=False)
                other.execute("ROLLBACK")
            assert refused.status_code == 503
            assert (await told(client, trace))["correct"] is True

    asyncio.run(main())


def test_it_goes_with_its_trace(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            trace = await searched(client)
            (await say(client, trace, correct=True)).raise_for_status()

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM feedback").fetchone() == (1,)
        connection.execute("DELETE FROM traces")
        assert connection.execute("SELECT COUNT(*) FROM feedback").fetchone() == (0,)


def test_it_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    none = Tokens(0, 0, 0)
    cells = tuple(Cell(place, "stop", {}, 0.75, 0.7, 0.8, 50, none, none, Seconds(1, 1)) for place in range(3))
    fitted = Policy(
        model="fake",
        prm=None,
        prompt="",
        created="2026-11-21",
        source="a test",
        pilot=Pilot(4),
        difficulty=None,
        edges=(0.1, 0.5),
        agreed=None,
        cells=cells,
    )
    write(fitted, tmp_path / "policy.json")

    async def main() -> None:
        async with keeping(tmp_path, policy=tmp_path / "policy.json") as client:
            id_ = (await ask(client, tts={"strategy": "compute_optimal"})).raise_for_status().json()["tts"]["trace_id"]
            (await say(client, id_, correct=False)).raise_for_status()
            trace = (await client.get(f"/v1/traces/{id_}")).raise_for_status().json()
            assert trace["final"]["decision"]["predicted_accuracy"] == 0.75
            assert trace["feedback"]["correct"] is False

    asyncio.run(main())
