"""Compressed bodies: those that are taken, those that are not, and those that grow without end."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest
from serving import body, serving

from tts_server.config import Settings

CHAT = orjson.dumps(body())
# Two processes of one run must give these tests the same names, so the data holds no time.
HALVES = gzip.compress(CHAT[:20], mtime=0) + gzip.compress(CHAT[20:], mtime=0)


async def asked(client: httpx.AsyncClient, data: bytes, encoding: str, size: int = 0) -> httpx.Response:
    """The answer to a body in pieces of a size, or in one."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    headers = {"content-type": "application/json", "content-encoding": encoding}
    return await client.post("/v1/chat/completions", content=pieces() if size else data, headers=headers)


@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(CHAT, mtime=0)),
        ("GZip", HALVES),
        ("x-gzip", gzip.compress(CHAT, mtime=0)),
        ("deflate", zlib.compress(CHAT)),
        ("deflate", zlib.compress(CHAT, wbits=-15)),
        ("identity", CHAT),
        ("identity, gzip", gzip.compress(CHAT, mtime=0)),
        ("", CHAT),
    ],
)
def test_a_compressed_body_is_taken(encoding: str, data: bytes, size: int) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await asked(client, data, encoding, size)
            assert response.status_code == 200, response.text
            assert "2 + 2" in response.text

    asyncio.run(main())


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "x" * 5000])
def test_an_encoding_that_is_not_understood_is_named(encoding: str) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await asked(client, CHAT, encoding)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (415, "unsupported_media_type")
            assert response.headers["accept-encoding"] == "gzip, deflate"
            assert error["message"].startswith(f"Content-Encoding: '{encoding[:80]}")
            assert error["message"].endswith("is not understood; allowed: gzip, deflate, identity.")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("encoding", "data", "why"),
    [
        ("gzip", CHAT, "it holds something else"),
        ("deflate", b"\xff" + CHAT, "it holds something else"),
        ("gzip", gzip.compress(CHAT, mtime=0) + b"more", "it holds something else"),
        ("deflate", zlib.compress(CHAT) + b"more", "something follows its end"),
        ("gzip", gzip.compress(CHAT, mtime=0)[:-9], "it breaks off"),
        ("deflate", zlib.compress(CHAT)[:-9], "it breaks off"),
    ],
)
def test_a_body_that_is_not_what_its_header_says_is_refused(encoding: str, data: bytes, why: str) -> None:
    async def main() -> None:
        async with serving() as client:
            response = await asked(client, data, encoding)
            assert response.status_code == 400
            assert response.json()["error"]["message"] == (
                f"The body is not what Content-Encoding: {encoding} says: {why}."
            )

    asyncio.run(main())


def test_the_limit_of_a_body_holds_for_what_comes_out() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 60_000

    async def main() -> None:
        async with serving(settings=Settings(max_body_bytes=200_000)) as client:
            for size in (0, 1000):
                response = await asked(client, bomb, "gzip", size)
                assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
            fits = orjson.dumps(body(pad=" " * 190_000))
            assert (await asked(client, gzip.compress(fits), "gzip")).status_code == 200

    asyncio.run(main())


def test_a_file_may_be_uploaded_compressed(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(settings=Settings(data_dir=tmp_path)) as client:
            form = client.build_request(
                "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"x" * 99)}
            )
            headers = {"content-type": form.headers["content-type"], "content-encoding": "gzip"}
            response = await client.post("/v1/files", content=gzip.compress(form.read()), headers=headers)
            assert response.status_code == 200, response.text
            assert response.json()["bytes"] == 99

    asyncio.run(main())
