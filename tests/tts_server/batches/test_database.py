"""The file: one process's, of a known schema, whole whatever happens."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from full_disk import disk_of

from tts_server.batches.database import Database, StoreTaken, StoreUnusable
from tts_server.batches.files import Files
from tts_server.batches.jobs import Jobs
from tts_server.batches.records import Answer, Batch, File, Piece, Request
from tts_server.errors import NotFound, StorageFull

ANSWER = Answer(200, "req_1", b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}')


@contextmanager
def opened(path: Path, max_bytes: int = 2**30) -> Iterator[Database]:
    database = Database(path / "some" / "file", max_bytes)
    try:
        yield database
    finally:
        database.close()


def a_batch(jobs: Jobs, *requests: Request) -> Batch:
    batch = Batch("batch_1", "", "m", "/v1/chat/completions", "file-1", "24h", None, 60, 1, 2)
    jobs.add(batch)
    assert jobs.add_requests(batch.id, requests)
    jobs.begin(batch.id, 1)
    return jobs.get(batch.id, "")


def test_only_its_user_can_read_it(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert (tmp_path / "some" / "file").stat().st_mode & 0o077 == 0


def test_it_belongs_to_one(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(StoreTaken, match="data_dir"), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_a_file_of_the_version_before_is_brought_up(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        a_batch(Jobs(database), Request(1, "a", b"{}"))
        database.change("ALTER TABLE batches DROP COLUMN spent_tokens")
        database.change("PRAGMA user_version = 1")
    with opened(tmp_path) as database:
        jobs = Jobs(database)
        jobs.pay("batch_1", 7)
        assert jobs.answer(jobs.get("batch_1", ""), Request(1, "a", b"{}"), ANSWER, 5)
        assert jobs.get("batch_1", "").spent_tokens == 12
    with opened(tmp_path):
        pass


def test_what_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        database.change("PRAGMA user_version = 7")
    with pytest.raises(StoreUnusable, match="schema 7"), opened(tmp_path):
        pass
    file = tmp_path / "some" / "file"
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnusable, match="not a database"), opened(tmp_path):
        pass
    assert file.read_bytes() == b"no database at all" * 100
    with pytest.raises(StoreUnusable, match="cannot be opened"):
        Database(file / "below", 1)


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        files, jobs = Files(database), Jobs(database)
        batch = a_batch(jobs, Request(1, "a", b"{}"))
        files.add(File("file-1", "", "batch", "a", 4, 1, 2))
        files.append("file-1", Piece(0, b"kept"))
        with disk_of(2**16):
            for number in range(1, 3):
                with pytest.raises(StorageFull, match="cannot be written"):
                    files.append("file-1", Piece(number, b"x" * 2**20))
            big = Answer(200, "r", b'"' + b"x" * 2**20 + b'"')
            with pytest.raises(StorageFull):
                jobs.answer(batch, Request(1, "a", b"{}"), big)
        assert jobs.next(batch.id, ()) == Request(1, "a", b"{}")
        assert jobs.answer(batch, Request(1, "a", b"{}"), ANSWER)
        files.append("file-1", Piece(1, b"more"))
        files.finish("file-1")
        assert files.pieces("file-1", -1) == [Piece(0, b"kept"), Piece(1, b"more")]


def test_a_file_can_be_deleted_on_a_full_disk(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        files = Files(database)
        for name in ("file-1", "file-2"):
            files.add(File(name, "", "batch", "a", 2**21, 1, 9))
            files.append(name, Piece(0, b"x" * 2**21))
            files.finish(name)
        room = database.room()
        with disk_of(max(path.stat().st_size for path in (tmp_path / "some").iterdir())):
            files.delete("file-1", "", 1)
        assert database.room() > room + 2**20
        assert len(files.pieces("file-2", -1)[0].data) == 2**21


def test_what_cannot_be_given_back_is_used_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as database:
        files = Files(database)
        for name in ("file-1", "file-2"):
            files.add(File(name, "", "batch", "a", 2**21, 1, 9))
            files.append(name, Piece(0, b"x" * 2**21))
        with database.transaction():
            database.change("DELETE FROM pieces WHERE file = 'file-1'")
        room = database.room()
        with disk_of(2**15):
            database.give_back()
        assert "used again" in caplog.text
        assert database.room() == room
        database.give_back()
        assert len(files.pieces("file-2", -1)[0].data) == 2**21


def test_an_answer_is_kept_once(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        jobs = Jobs(database)
        batch = a_batch(jobs, Request(1, "a", b"{}"), Request(2, "b", b"{}"))
        request = jobs.next(batch.id, (2,))
        assert request == Request(1, "a", b"{}")
        assert jobs.answer(batch, request, ANSWER)
        assert not jobs.answer(batch, request, ANSWER)
        seen = jobs.get(batch.id, "")
        assert (seen.completed, seen.failed, seen.tokens.input, seen.tokens.output) == (1, 0, 3, 4)
        while not jobs.end(seen, "expired", 9):
            pass
        assert not jobs.answer(batch, Request(2, "b", b"{}"), ANSWER)
        done = jobs.get(batch.id, "")
        assert (done.status, done.completed, done.failed) == ("expired", 1, 1)


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        jobs = Jobs(database)
        batch = a_batch(jobs, Request(1, "a", b"{}"))
        database.change("CREATE TRIGGER broken BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'broken'); END")
        with pytest.raises(sqlite3.IntegrityError):
            jobs.answer(batch, Request(1, "a", b"{}"), ANSWER)
        assert jobs.next(batch.id, ()) is not None
        assert database.rows("SELECT 1 FROM pieces") == []


def test_many_requests_without_an_answer_are_written_in_steps(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        jobs = Jobs(database)
        batch = a_batch(jobs, *(Request(i, f"{i}", b"{}") for i in range(1, 2501)))
        steps = 1
        while not jobs.end(batch, "cancelled", 9):
            steps += 1
        assert steps == 3
        assert jobs.get(batch.id, "").failed == 2500
        assert jobs.get(batch.id, "").output_file_id is None


def test_files_that_are_over_their_time_are_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        files = Files(database)
        for id_, until in (("file-1", 100), ("file-2", 200)):
            files.add(File(id_, "me", "batch", "a", 2, 1, until))
            files.append(id_, Piece(0, b"ab"))
            files.finish(id_)
        with pytest.raises(NotFound):
            files.get("file-1", "me", 150)
        files.drop_expired(150)
        assert [row["file"] for row in database.rows("SELECT file FROM pieces")] == ["file-2"]
        assert [file.id for file in files.page("me", None, 150, limit=9, after=None, ascending=True).files] == [
            "file-2"
        ]


def test_an_upload_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        files = Files(database)
        files.add(File("file-1", "", "batch", "a", 2, 1, 9))
        files.append("file-1", Piece(0, b"a"))
        with pytest.raises(NotFound):
            files.get("file-1", "", 1)
    with opened(tmp_path) as database:
        Files(database)
        assert database.rows("SELECT 1 FROM pieces") == []


def test_space_is_used_again(tmp_path: Path) -> None:
    with opened(tmp_path, 2**22) as database:
        files = Files(database)
        for i in range(10):
            files.add(File(f"file-{i}", "", "batch", "a", 2**21, 1, 9))
            files.append(f"file-{i}", Piece(0, b"x" * 2**21))
            files.finish(f"file-{i}")
            with pytest.raises(StorageFull, match="Delete files"):
                files.add(File("file-x", "", "batch", "a", 2**22, 1, 9))
            files.delete(f"file-{i}", "", 1)
