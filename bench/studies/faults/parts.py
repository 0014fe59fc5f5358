"""The parts of the run: the storm, the slow readers, and the full disk."""

import asyncio
import json
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from bench.studies.faults.answers import Malformed, read
from bench.studies.faults.asks import Ask, fine
from bench.studies.faults.clients import Address, Outcome, make, request
from bench.studies.faults.upstream import FaultyUpstream

OUTAGES, OUTAGE_S = 3, 0.4
AGAIN_S = 1.0
"""A client that finds no engine waits for so long before it asks anything else."""
READ, READ_EVERY_S, WINDOW = 512, 0.25, 4096
"""Bytes that a slow reader takes, how often, and those that its system takes for it."""
LINES = 40
"""Of the batch that meets a full disk."""


async def storm(asks: Sequence[Ask], at: Address, upstream: FaultyUpstream, clients: int) -> list[Outcome]:
    """All requests, so many at once; the upstream dies and rises in between."""
    outcomes: list[Outcome] = []
    left = iter(asks)

    async def client() -> None:
        for ask in left:
            outcome = await make(ask, at)
            outcomes.append(outcome)
            if outcome.answer and outcome.answer.status == 503:
                await asyncio.sleep(AGAIN_S)

    async def outages() -> None:
        for outage in range(1, OUTAGES + 1):
            while len(outcomes) < len(asks) * outage / (OUTAGES + 1):  # noqa: ASYNC110  a count sets no event
                await asyncio.sleep(0.05)
            await upstream.die()
            await asyncio.sleep(OUTAGE_S)
            await upstream.rise()

    async with asyncio.TaskGroup() as group:
        group.create_task(outages())
        for _ in range(clients):
            group.create_task(client())
    return outcomes


@dataclass(frozen=True, slots=True)
class Slow:
    """What slow readers were told, and what others were told meanwhile."""

    problems: list[str]
    most: int
    """Streams under way at once."""
    seconds: list[float]
    """Of each answer to another client."""


async def slow_readers(count: int, first: int, at: Address, upstream: FaultyUpstream) -> Slow:
    """So many streams at once, each read a little at a time, and a client beside them that is not slow."""
    problems: list[str] = []
    seconds: list[float] = []
    most = 0
    stream = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8000}

    async def reader(number: int) -> None:
        ask = fine(number, "long", **stream)
        try:
            answer = read(await _trickled(request(ask, at), at), ask)
        except (Malformed, OSError) as error:
            problems.append(f"slow reader {number}: {error!r}")
        else:
            if answer.error:
                problems.append(f"slow reader {number}: {answer.error}")

    async def other() -> None:
        nonlocal most
        number = first + count
        while True:
            outcome = await make(fine(number), at)
            if outcome.problem or not outcome.answer or outcome.answer.status != 200:
                problems.append(f"beside slow readers: {outcome}")
            seconds.append(outcome.seconds)
            most = max(most, upstream.live)
            number += 1
            await asyncio.sleep(0.1)

    beside = asyncio.create_task(other())
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + count):
            group.create_task(reader(number))
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    return Slow(problems, most, seconds)


async def _trickled(data: bytes, at: Address) -> bytes:
    loop, come = asyncio.get_running_loop(), bytearray()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        await loop.sock_connect(connection, (at.host, at.port))
        await loop.sock_sendall(connection, data)
        while piece := await loop.sock_recv(connection, READ):
            come += piece
            await asyncio.sleep(READ_EVERY_S)
    return bytes(come)


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No file of the process can be written, as on a disk that is full."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@dataclass(frozen=True, slots=True)
class Disk:
    """What became of a batch and of chats while nothing could be written."""

    problems: list[str]
    chats: int
    refused: int
    """Uploads that were told there is no room."""
    lines: int
    """Of the batch that were answered in the end, each once."""
    seconds: float
    """From the room's return to the batch's end."""


async def on_a_full_disk(url: str, pid: int, first: int, at: Address) -> Disk:
    """A batch whose answers find no room, chats that go on meanwhile, and what is refused."""
    problems: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        uploaded = await _upload(http, first)
        wanted = {"input_file_id": uploaded.json()["id"], "endpoint": "/v1/chat/completions"}
        batch = (await http.post("/v1/batches", json={**wanted, "completion_window": "24h"})).json()
        with full_disk(pid):
            chats = [await make(fine(first + 1000 + i), at) for i in range(50)]
            refused = [(await _upload(http, first + 2000)).status_code for _ in range(5)]
        problems += [f"a chat: {chat}" for chat in chats if not chat.answer or chat.answer.status != 200]
        problems += [f"an upload: status {status}" for status in refused if status != 507]
        began = time.monotonic()
        answers = await _answers(http, batch["id"])
    ids = sorted(answer["custom_id"] for answer in answers)
    if ids != sorted(f"line-{number}" for number in range(LINES)):
        problems.append(f"the batch's lines: {ids}")
    return Disk(problems, len(chats), refused.count(507), len(ids), time.monotonic() - began)


async def _upload(http: httpx.AsyncClient, first: int) -> httpx.Response:
    lines = [
        json.dumps(
            {
                "custom_id": f"line-{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": dict(fine(first + i).body),
            }
        )
        for i in range(LINES)
    ]
    file = {"file": ("batch.jsonl", "\n".join(lines).encode(), "application/jsonl")}
    return await http.post("/v1/files", files=file, data={"purpose": "batch"})


async def _answers(http: httpx.AsyncClient, batch: str) -> list[dict[str, str]]:
    """Of every line, once the batch has ended."""
    async with asyncio.timeout(60):
        while (told := (await http.get(f"/v1/batches/{batch}")).json())["status"] != "completed":  # noqa: ASYNC110  it is over there
            await asyncio.sleep(0.2)
    found = []
    for file in (told["output_file_id"], told["error_file_id"]):
        if file:
            found += (await http.get(f"/v1/files/{file}/content")).text.splitlines()
    return [json.loads(line) for line in found]
