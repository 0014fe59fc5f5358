"""Which line is answered when: after the others, in turns, once, and in the end."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from batching import CHAT, batching, ended, line, submit, told
from serving import until

from tts_server.batches import runner
from tts_server.batches.jobs import Jobs
from tts_server.config import BatchConfig
from tts_server.engines.fake import FakeEngine
from tts_server.errors import APIError, EngineUnavailable, InvalidRequest, StorageFull, TooManyRequests, UpstreamError


class Held(FakeEngine):
    """Answers what is let go; remembers what it was asked."""

    def __init__(self, errors: list[APIError] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[str] = []
        self.most = 0
        self.errors = errors or []
        self.all = asyncio.Event()
        self._gone: set[str] = set()
        self._under_way: list[str] = []

    @property
    def under_way(self) -> list[str]:
        return sorted(self._under_way)

    def let_go(self, *texts: str) -> None:
        self._gone |= set(texts)

    async def generate(self, prompt: Any, sampling: Any, n: int = 1) -> AsyncGenerator[Any, None]:
        text = str(prompt.messages[-1]["content"])
        self.asked.append(text)
        self._under_way.append(text)
        self.most = max(self.most, len(self._under_way))
        try:
            while not self.all.is_set() and text not in self._gone:  # noqa: ASYNC110  one of several things
                await asyncio.sleep(0.002)
            if self.errors:
                raise self.errors.pop(0)
            async for chunk in super().generate(prompt, sampling, n):
                yield chunk
        finally:
            self._under_way.remove(text)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once."""
    for name in ("FIRST_WAIT_S", "RETRY_S", "LOOK_S"):
        monkeypatch.setattr(runner, name, 0.01)


def asks(text: str) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": text}]}


def test_no_line_is_begun_while_as_many_others_wait(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=2)) as client:
            chats = [asyncio.create_task(client.post(CHAT, json=asks(f"chat {i}"))) for i in range(3)]
            await until(lambda: len(engine.under_way) == 3)
            made = await submit(client, [line(f"{i}", f"line {i}") for i in range(4)])
            await ended(client, made, "in_progress")
            await asyncio.sleep(0.1)
            assert engine.under_way == ["chat 0", "chat 1", "chat 2"]
            engine.let_go("chat 0")
            await chats[0]
            await asyncio.sleep(0.05)
            assert engine.under_way == ["chat 1", "chat 2"]
            # Two less their limit of two: the first place is a line's.
            engine.let_go("chat 1")
            await until(lambda: engine.under_way == ["chat 2", "line 0"])
            await asyncio.sleep(0.05)
            assert engine.under_way == ["chat 2", "line 0"]
            # Who comes now is not kept waiting by lines.
            chats.append(asyncio.create_task(client.post(CHAT, json=asks("chat 3"))))
            await until(lambda: "chat 3" in engine.under_way)
            engine.let_go("line 0")
            await until(lambda: engine.under_way == ["chat 2", "chat 3"])
            await asyncio.sleep(0.05)
            assert engine.under_way == ["chat 2", "chat 3"]
            engine.all.set()
            assert [(await chat).status_code for chat in chats] == [200] * 4
            assert (await ended(client, made))["request_counts"]["completed"] == 4

    asyncio.run(main())


def test_lines_take_no_place_of_an_interactive_request(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=4), max_requests=1) as client:
            made = await submit(client, [line(f"{i}", f"line {i}") for i in range(8)])
            await until(lambda: len(engine.under_way) == 4)
            engine.let_go("chat")
            assert (await client.post(CHAT, json=asks("chat"))).status_code == 200
            engine.all.set()
            done = await ended(client, made)
            assert done["request_counts"]["completed"] == 8
            # With the chat that came between.
            assert engine.most == 5

    asyncio.run(main())


def test_batches_take_turns(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=1)) as client:
            first = await submit(client, [line(f"{i}", f"a{i}") for i in range(4)])
            await until(lambda: engine.under_way == ["a0"])
            second = await submit(client, [line(f"{i}", f"b{i}") for i in range(2)])
            await ended(client, second, "in_progress")
            engine.all.set()
            for batch in (first, second):
                await ended(client, batch)
            assert engine.asked == ["a0", "b0", "a1", "b1", "a2", "a3"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("errors", "tries", "status"),
    [
        ([UpstreamError("gone")] * 2, 3, 200),
        ([UpstreamError("gone")] * 9, 3, 502),
        ([EngineUnavailable("down")] * 5, 6, 200),
        ([EngineUnavailable("down")] * 50, 10, 503),
        ([TooManyRequests("spent")] * 15, 16, 200),
        ([InvalidRequest("no")], 1, 400),
    ],
    ids=["fails twice", "always fails", "is down", "brings it down", "has no quota", "is wrong"],
)
def test_what_the_server_fails_to_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errors: list[APIError], tries: int, status: int
) -> None:
    monkeypatch.setattr(runner, "MAX_WAIT_S", 0.01)

    async def main() -> None:
        engine = Held(list(errors))
        engine.all.set()
        async with batching(tmp_path, engine) as client:
            done = await ended(client, await submit(client, [line("a", "x")]))
            answers = {**await told(client, done["output_file_id"]), **await told(client, done["error_file_id"])}
            assert answers["a"]["response"]["status_code"] == status
            assert len(engine.asked) == tries

    asyncio.run(main())


def test_nothing_is_asked_of_an_engine_that_is_down(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        engine.all.set()
        engine.healthy = False
        async with batching(tmp_path, engine) as client:
            made = await submit(client, [line("a")])
            await ended(client, made, "in_progress")
            await asyncio.sleep(0.05)
            assert engine.asked == []
            engine.healthy = True
            assert (await ended(client, made))["request_counts"]["completed"] == 1

    asyncio.run(main())


def test_what_was_under_way_at_the_end_is_asked_by_the_next_server(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=2)) as client:
            made = await submit(client, [line(f"{i}", f"line {i}") for i in range(5)])
            engine.let_go("line 0", "line 1")
            await until(lambda: engine.under_way == ["line 2", "line 3"])
        assert engine.under_way == []
        after = Held()
        after.all.set()
        async with batching(tmp_path, after) as client:
            done = await ended(client, made)
            assert done["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
            assert list(await told(client, done["output_file_id"])) == ["0", "1", "2", "3", "4"]
        assert sorted(after.asked) == ["line 2", "line 3", "line 4"]

    asyncio.run(main())


def change(path: Path, sql: str) -> None:
    with sqlite3.connect(path / "batches.sqlite3") as database:
        database.execute(sql)
    database.close()


def test_what_is_over_its_time_keeps_what_was_answered(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=1)) as client:
            made = await submit(client, [line(f"{i}", f"line {i}") for i in range(3)])
            engine.let_go("line 0")
            await until(lambda: engine.under_way == ["line 1"])
        change(tmp_path, "UPDATE batches SET expires_at = 1")
        async with batching(tmp_path, engine) as client:
            done = await ended(client, made)
            assert done["status"] == "expired"
            assert done["expired_at"] > 1
            assert done["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
            assert list(await told(client, done["output_file_id"])) == ["0"]
            left = await told(client, done["error_file_id"])
            assert [(one["response"], one["error"]["code"]) for one in left.values()] == [(None, "batch_expired")] * 2

    asyncio.run(main())


def test_a_batch_waits_for_the_model_it_was_made_for(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=1)) as client:
            made = await submit(client, [line("a"), line("b")])
            await until(lambda: len(engine.under_way) == 1)
        other = Held(model="other")
        other.all.set()
        async with batching(tmp_path, other) as client:
            own = [{**line("a"), "body": {**line("a")["body"], "model": "other"}}]
            assert (await ended(client, await submit(client, own)))["request_counts"]["completed"] == 1
            waits = (await client.get(f"/v1/batches/{made['id']}")).json()
            assert (waits["status"], waits["model"]) == ("in_progress", "fake")
        assert len(other.asked) == 1
        engine.all.set()
        async with batching(tmp_path, engine) as client:
            assert (await ended(client, made))["request_counts"]["completed"] == 2

    asyncio.run(main())


def test_an_answer_that_a_full_disk_does_not_take_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, refused = Jobs.answer, 0

    def full_at_first(*args: Any) -> bool:
        nonlocal refused
        refused += 1
        if refused <= 3:
            raise StorageFull("The disk is full.")
        return answer(*args)

    monkeypatch.setattr(Jobs, "answer", full_at_first)

    async def main() -> None:
        engine = Held()
        engine.all.set()
        async with batching(tmp_path, engine) as client:
            done = await ended(client, await submit(client, [line("a")]))
            assert done["request_counts"]["completed"] == 1
        assert len(engine.asked) == 1
        assert refused == 4

    asyncio.run(main())


def test_no_line_is_begun_where_its_answer_has_no_room(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Held()
        async with batching(tmp_path, engine, BatchConfig(concurrency=1)) as client:
            made = await submit(client, [line("a"), line("b")])
            await until(lambda: len(engine.under_way) == 1)
        engine.all.set()
        asked = len(engine.asked)
        async with batching(tmp_path, engine, BatchConfig(max_stored_bytes=0)) as client:
            await asyncio.sleep(0.1)
            assert (await client.get(f"/v1/batches/{made['id']}")).json()["status"] == "in_progress"
        assert len(engine.asked) == asked
        async with batching(tmp_path, engine) as client:
            assert (await ended(client, made))["status"] == "completed"

    asyncio.run(main())


def test_requests_that_do_not_fit_fail_their_batch(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path, batch=BatchConfig(max_stored_bytes=3 * 2**20)) as client:
            done = await ended(client, await submit(client, [line("a", pad="x" * 2**21)]))
            assert (done["status"], done["errors"]["data"][0]["code"]) == ("failed", "storage_full")

    asyncio.run(main())
