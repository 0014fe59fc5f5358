"""Records are kept within their bounds, and no fault of the disk reaches whoever hands them in."""

import asyncio
import logging
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from full_disk import disk_of
from patience import NEVER_S
from serving import until
from tracing import record_of

from tts_server.config import Settings
from tts_server.errors import EngineUnavailable, InvalidRequest, NotFound
from tts_server.observe.traces import database as file
from tts_server.observe.traces import store
from tts_server.observe.traces.database import FILE, Reader, Writer
from tts_server.observe.traces.recording import Record
from tts_server.observe.traces.render import Row, row
from tts_server.observe.traces.store import Traces

RECORD = record_of()


def named(id_: str, **fields: Any) -> Record:
    return Record(id_, "fake", RECORD.plan, RECORD.recorder, **fields)


def opened(directory: Path, **settings: Any) -> Traces:
    traces = Traces(Settings(data_dir=directory, **settings))
    traces.start()
    return traces


async def ids(traces: Traces, owner: str = "", **wanted: Any) -> list[str]:
    page = await traces.page(owner, wanted.get("limit", 1000), wanted.get("after"), wanted.get("strategy"))
    return [stored.id for stored in page]


def largest(directory: Path) -> int:
    return max(path.stat().st_size for path in directory.iterdir())


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Somebody else has the file for himself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_what_is_put_can_be_read_at_once_and_by_a_later_server(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path / "new", traces="full")
        for number in range(3):
            traces.put(named(f"trace-{number}"))
        found = await traces.get("trace-1", "")
        assert (found["id"], found["usage"]["samples"], len(found["calls"][0]["samples"])) == ("trace-1", 4, 4)
        await traces.close()
        later = opened(tmp_path / "new")
        assert await ids(later) == ["trace-2", "trace-1", "trace-0"]
        assert (await later.get("trace-1", "")) == found
        await later.close()
        assert (tmp_path / "new" / FILE).stat().st_mode & 0o077 == 0
        assert traces.dropped == later.dropped == 0

    asyncio.run(main())


def test_pages_and_owners(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path)
        for number in range(5):
            traces.put(named(f"trace-{number}", owner="ada" if number % 2 else "bob"))
        assert await ids(traces, "bob") == ["trace-4", "trace-2", "trace-0"]
        assert await ids(traces, "ada", limit=1) == ["trace-3"]
        assert await ids(traces, "bob", after="trace-4", limit=1) == ["trace-2"]
        assert await ids(traces, "bob", strategy="single") == []
        assert await ids(traces) == []
        with pytest.raises(NotFound):
            await traces.get("trace-1", "bob")
        with pytest.raises(InvalidRequest, match="after: there is no trace 'trace-1'"):
            await ids(traces, "bob", after="trace-1")
        await traces.close()

    asyncio.run(main())


def test_the_oldest_go_when_there_is_no_more_room(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path, traces_max_bytes=2**20)
        made = row(RECORD, "full")
        head = made.head + b" " * 20_000
        writer = Writer(tmp_path / FILE, 2**20, 3600)
        for number in range(0, 200, 10):
            rows = [Row(f"trace-{n}", "", time.time(), "single", head, made.body) for n in range(number, number + 10)]
            assert writer.add(rows) == 0
        writer.close()
        found = await ids(traces)
        assert found == [f"trace-{number}" for number in range(199, 199 - len(found), -1)]
        assert 30 < len(found) < 55
        await traces.close()

    asyncio.run(main())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 2**20


def test_old_ones_go(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path, traces_max_age_s=60)
        traces.put(named("trace-old", created=time.time() - 61))
        traces.put(named("trace-new", created=time.time() - 30))
        assert await ids(traces) == ["trace-new"]
        await traces.close()

    asyncio.run(main())


def test_old_ones_go_at_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path)
        traces.put(named("trace-old", created=time.time() - 61))
        traces.put(named("trace-new", created=time.time() - 30))
        assert await ids(traces) == ["trace-new", "trace-old"]
        await traces.close()
        later = opened(tmp_path, traces_max_age_s=60)
        reader = Reader(tmp_path / FILE)
        await until(lambda: [listed.id for listed in reader.page(None, 9)] == ["trace-new"])
        await later.close()

    asyncio.run(main())


def test_old_ones_go_where_none_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TRIM_S", 0.05)

    async def main() -> None:
        traces = opened(tmp_path, traces_max_age_s=60)
        traces.put(named("trace-old", created=time.time() - 59.5))
        assert await ids(traces) == ["trace-old"]
        reader = Reader(tmp_path / FILE)
        await until(lambda: not reader.page(None, 9))
        await traces.close()

    asyncio.run(main())


def test_a_smaller_bound_gives_room_back_to_the_disk(tmp_path: Path) -> None:
    made = row(RECORD, "full")
    rows = [Row(f"trace-{n}", "", time.time(), "single", made.head + b" " * 50_000, made.body) for n in range(100)]
    with closing(Writer(tmp_path / FILE, 2**30, 3600)) as writer:
        writer.add(rows)
    assert (tmp_path / FILE).stat().st_size > 2**22
    with closing(Writer(tmp_path / FILE, 2**20, 3600)) as writer:
        writer.add([])
    assert largest(tmp_path) < 2**20 * 1.2
    found = Reader(tmp_path / FILE).page(None, 100)
    assert [listed.id for listed in found] == [f"trace-{n}" for n in range(99, 99 - len(found), -1)]
    assert found


def test_large_ones_are_exported_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "SMALL_BYTES", 0)
    monkeypatch.setattr(file, "PAGE_BYTES", 3 * len(zlib.compress(row(RECORD, "full").body, 1)))

    async def main() -> None:
        traces = opened(tmp_path, traces="full")
        for number in range(10):
            traces.put(named(f"trace-{number}"))
        assert len(await ids(traces)) == 10
        pages = list(Reader(tmp_path / FILE).pages(None, 8))
        assert [len(page) for page in pages] == [3, 3, 2]
        monkeypatch.setattr(file, "PAGE_BYTES", 1)
        assert [len(page) for page in Reader(tmp_path / FILE).pages(None, 3)] == [1, 1, 1]
        lines = [orjson.loads(line)["id"] async for line in await traces.export("", None, None, None)]
        assert lines == [f"trace-{number}" for number in range(9, -1, -1)]
        await traces.close()

    asyncio.run(main())


def test_the_order_is_that_of_their_ends_whatever_the_clock_says(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path)
        for number, hour in enumerate((10, 11, 3, 4)):
            traces.put(named(f"trace-{number}", created=time.time() + 3600 * hour))
        assert await ids(traces) == ["trace-3", "trace-2", "trace-1", "trace-0"]
        assert await ids(traces, after="trace-2") == ["trace-1", "trace-0"]
        await traces.close()

    asyncio.run(main())


def test_one_that_is_too_large_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        traces = opened(tmp_path, traces="full", traces_max_bytes=2**20)
        traces.put(Record("trace-large" + "x" * 2**18, "fake", RECORD.plan, RECORD.recorder))
        traces.put(named("trace-small"))
        assert await ids(traces) == ["trace-small"]
        assert traces.dropped == 1
        await traces.close()

    asyncio.run(main())
    assert "too large for traces_max_bytes" in caplog.text


def test_a_full_disk_drops_and_counts_and_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        traces = opened(tmp_path)
        traces.put(named("trace-first"))
        assert await ids(traces) == ["trace-first"]
        with disk_of(largest(tmp_path)):
            for number in range(40):
                traces.put(named(f"trace-{number}"))
            await until(lambda: traces.dropped == 40)
        traces.put(named("trace-last"))
        assert await ids(traces) == ["trace-last", "trace-first"]
        assert traces.dropped == 40
        await traces.close()

    asyncio.run(main())
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2, "the first drop at once, and the sum at the end"
    assert str(tmp_path) in warnings[0].getMessage()


def test_a_file_that_is_being_made_has_none_yet(tmp_path: Path) -> None:
    reader = Reader(tmp_path / FILE)
    for made in (b"", None):
        if made is not None:
            (tmp_path / FILE).write_bytes(made)
        else:
            with closing(sqlite3.connect(tmp_path / FILE)) as begun:
                begun.execute("PRAGMA journal_mode = WAL")
        assert reader.page(None, 9) == list(reader.pages(None, None)) == []
        assert reader.get("trace-1", None) is None


def test_a_directory_that_cannot_be_made_drops_and_counts(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "taken").write_text("a file")
        traces = opened(tmp_path / "taken" / "data")
        traces.put(named("trace-1"))
        await until(lambda: traces.dropped == 1)
        assert await ids(traces) == []
        await traces.close()

    asyncio.run(main())


def test_a_damaged_file_drops_and_counts_and_cannot_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
        traces = opened(tmp_path)
        traces.put(named("trace-1"))
        await until(lambda: traces.dropped == 1)
        with pytest.raises(EngineUnavailable):
            await traces.get("trace-1", "")
        await traces.close()

    asyncio.run(main())


def test_a_file_that_somebody_holds_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "WRITE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(file, "READ_TIMEOUT_S", 0.1)

    async def main() -> None:
        traces = opened(tmp_path)
        traces.put(named("trace-first"))
        await traces.close()
        monkeypatch.setattr(store, "SETTLE_S", 0.1)
        with held(tmp_path / FILE):
            traces = opened(tmp_path)
            traces.put(named("trace-lost"))
            with pytest.raises(EngineUnavailable):
                await ids(traces)
            await until(lambda: traces.dropped == 1)
        monkeypatch.undo()
        traces.put(named("trace-last"))
        assert await ids(traces) == ["trace-last", "trace-first"]
        await traces.close()

    asyncio.run(main())


def test_what_waits_is_bounded_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PENDING_BYTES", 50_000)

    async def main() -> None:
        traces = opened(tmp_path)
        with held(tmp_path / FILE):
            for number in range(1000):
                traces.put(named(f"trace-{number}"))
                await asyncio.sleep(0)
            assert traces.dropped > 900
        kept = await ids(traces)
        assert len(kept) + traces.dropped == 1000
        assert kept
        await traces.close()

    asyncio.run(main())


def test_the_end_writes_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LINGER_S", 30)

    async def main() -> None:
        traces = opened(tmp_path)
        for number in range(600):
            traces.put(named(f"trace-{number}"))
        await traces.close()
        assert not traces.on
        traces.put(named("trace-late"))
        assert traces.dropped == 1

    asyncio.run(main())
    assert len(Reader(tmp_path / FILE).page(None, 1000)) == 600


def test_the_end_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "DRAIN_S", 0.2)

    async def main() -> None:
        traces = opened(tmp_path)
        with held(tmp_path / FILE):
            traces.put(named("trace-1"))
            async with asyncio.timeout(NEVER_S):
                await traces.close()
        assert traces.dropped == 1
        assert traces._thread
        await asyncio.to_thread(traces._thread.join)

    asyncio.run(main())
    assert "the server ends" in caplog.text


def test_one_that_cannot_be_written_down_does_not_stop_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path)
        nothing = SimpleNamespace(samples=0)
        traces.put(Record("trace-odd", "fake", RECORD.plan, nothing))  # type: ignore[arg-type]
        traces.put(named("trace-even"))
        assert await ids(traces) == ["trace-even"]
        assert traces.dropped == 1
        await traces.close()

    asyncio.run(main())


def test_off_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        traces = opened(tmp_path, traces="off")
        assert not traces.on
        with pytest.raises(NotFound, match="keeps no traces"):
            await traces.get("trace-1", "")
        await traces.close()

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
