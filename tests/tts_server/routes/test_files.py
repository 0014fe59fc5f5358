"""`/v1/files`: what goes in comes out again, for its owner and for its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from batching import CHAT, batching, line, upload
from full_disk import disk_of

from tts_server.batches.database import Database
from tts_server.batches.files import Files
from tts_server.batches.records import File, Piece
from tts_server.batches.service import FILE
from tts_server.config import BatchConfig


@pytest.mark.parametrize("size", [0, 1, 2**20, 3 * 2**20 + 7])
def test_a_file_comes_back_as_it_was(tmp_path: Path, size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(251)) * (size // 251 + 1)

    async def main() -> None:
        async with batching(tmp_path) as client:
            made = await upload(client, data[:size], name="../../etc/passwd")
            assert made.status_code == 200, made.text
            file = made.json()
            assert (file["object"], file["bytes"], file["purpose"]) == ("file", size, "batch")
            assert file["filename"] == "../../etc/passwd"
            assert file["expires_at"] == file["created_at"] + 30 * 24 * 3600
            assert (await client.get(f"/v1/files/{file['id']}")).json() == file
            content = await client.get(f"/v1/files/{file['id']}/content")
            assert content.content == data[:size]
            assert content.headers["content-length"] == str(size)
            assert (await client.get("/v1/files")).json()["data"] == [file]

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["batches.sqlite3"]


def test_a_file_outlives_its_server_and_can_be_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            file = (await upload(client, b"{}\n")).json()
        async with batching(tmp_path) as client:
            assert (await client.get(f"/v1/files/{file['id']}/content")).content == b"{}\n"
            gone = await client.delete(f"/v1/files/{file['id']}")
            assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
            for method, end in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
                answer = await client.request(method, f"/v1/files/{file['id']}{end}")
                assert answer.status_code == 404
                assert answer.json()["error"]["param"] == "file_id"
            assert (await client.get("/v1/files")).json()["first_id"] is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("form", "status", "param"),
    [
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "fine-tune"}}, 400, "purpose"),
        ({"files": {"file": ("a", b"x")}}, 400, "purpose"),
        ({"files": {"other": ("a", b"x")}, "data": {"purpose": "batch"}}, 400, "other"),
        ({"files": {"file": (None, b"x"), "purpose": (None, b"batch")}}, 400, "file"),
        ({"files": {"file": ("a" * 256, b"x")}, "data": {"purpose": "batch"}}, 400, "file"),
        ({"files": {"file": ("a", b"x" * 2000)}, "data": {"purpose": "batch"}}, 413, "file"),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "path": "/etc"}}, 400, "path"),
        (
            {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch", "expires_after[anchor]": "now"}},
            400,
            "expires_after[anchor]",
        ),
        *[
            (
                {
                    "files": {"file": ("a", b"x")},
                    "data": {
                        "purpose": "batch",
                        "expires_after[anchor]": "created_at",
                        "expires_after[seconds]": seconds,
                    },
                },
                400,
                "expires_after[seconds]",
            )
            for seconds in ("3599", "2592001", "-1", "x", "9" * 50)
        ],
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"x"))], "data": {"purpose": "batch"}}, 400, None),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "purpose"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, None),
        ({"json": {}}, 400, None),
        ({}, 400, "file"),
    ],
)
def test_what_is_no_upload_is_refused(tmp_path: Path, form: dict[str, Any], status: int, param: str | None) -> None:
    async def main() -> None:
        async with batching(tmp_path, batch=BatchConfig(max_file_bytes=1024)) as client:
            answer = await client.post("/v1/files", **form)
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            # A form that cannot be read has no field to name, and one without any lacks all.
            assert error["param"] in (param, "file")
            assert (await client.get("/v1/files")).json()["data"] == []

    asyncio.run(main())


def test_a_body_far_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while sent < 10**8:
            sent += 2**16
            yield b"x" * 2**16

    async def main() -> None:
        async with batching(tmp_path, batch=BatchConfig(max_file_bytes=2**20)) as client:
            headers = {"content-type": "multipart/form-data; boundary=x"}
            answer = await client.post("/v1/files", content=endless(), headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
        assert sent < 2**22

    asyncio.run(main())


def test_no_more_is_stored_than_may_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path, batch=BatchConfig(max_stored_bytes=4 * 2**20)) as client:
            first = (await upload(client, b"x" * 2**21)).json()
            full = await upload(client, b"x" * 3 * 2**20)
            assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
            assert full.headers["x-should-retry"] == "false"
            assert (await client.get("/v1/files")).json()["data"] == [first]
            await client.delete(f"/v1/files/{first['id']}")
            assert (await upload(client, b"x" * 3 * 2**20)).status_code == 200

    asyncio.run(main())


def test_on_a_full_disk_files_are_refused_and_chats_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            kept = (await upload(client, b"{}\n")).json()
            with disk_of(2**16):
                for _ in range(3):
                    full = await upload(client, b"x" * 3 * 2**20)
                    assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
                    assert (await client.post(CHAT, json=line("a")["body"])).status_code == 200
            assert (await client.get("/v1/files")).json()["data"] == [kept]
            assert (await upload(client, b"x" * 3 * 2**20)).status_code == 200

    asyncio.run(main())


def test_a_server_starts_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Database(tmp_path / FILE, 2**30)) as database:
        files = Files(database)
        files.add(File("file-cut-off", "", "batch", "a", 2**20, 1, 2))
        files.append("file-cut-off", Piece(0, b"x" * 2**20))

    async def main() -> None:
        with disk_of(1):
            client = await stack.enter_async_context(batching(tmp_path))
            assert (await client.post(CHAT, json=line("a")["body"])).status_code == 200
            assert (await client.get("/v1/files")).status_code == 507
        assert (await client.get("/v1/files")).json()["data"] == []
        await stack.aclose()

    stack = AsyncExitStack()
    asyncio.run(main())
    assert "batches wait until somebody asks for one" in caplog.text


def test_the_list_is_walked_by_its_last(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            ids = [(await upload(client, b"x")).json()["id"] for _ in range(4)]
            for order, known in (("desc", ids[::-1]), ("asc", ids)):
                page = (await client.get("/v1/files", params={"limit": 3, "order": order})).json()
                assert [file["id"] for file in page["data"]] == known[:3]
                assert (page["first_id"], page["last_id"], page["has_more"]) == (known[0], known[2], True)
                page = (await client.get("/v1/files", params={"after": known[2], "order": order})).json()
                assert [file["id"] for file in page["data"]] == known[3:]
                assert page["has_more"] is False
            assert (await client.get("/v1/files", params={"purpose": "batch_output"})).json()["data"] == []
            for wrong, status in (({"limit": 0}, 400), ({"order": "up"}, 400), ({"after": "file-none"}, 404)):
                answer = await client.get("/v1/files", params=wrong)
                assert (answer.status_code, answer.json()["error"]["param"]) == (status, next(iter(wrong)))

    asyncio.run(main())


def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path) as first, batching(tmp_path / "other") as elsewhere:
            await upload(first, b"x")
            assert (await upload(elsewhere, b"x")).status_code == 200
            async with batching(tmp_path) as second:
                answer = await second.get("/v1/files")
                assert answer.status_code == 503
                assert "another server" in answer.json()["error"]["message"]
                assert (await second.get("/v1/models")).status_code == 200

    asyncio.run(main())
