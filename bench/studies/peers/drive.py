"""Clients that ask one request after the other and time each, as cheaply as Python can.

They share their core with the upstream stub, so no HTTP library stands between: its time would be measured too.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

import orjson


class WrongAnswer(Exception):
    """A server answered something else than what was asked for."""


@dataclass(frozen=True, slots=True)
class Work:
    """A request that is asked over and over."""

    body: Mapping[str, object]
    expect: bytes
    """Stands in every right answer."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The answers of some seconds."""

    seconds: float
    latencies: list[float]
    """Seconds of each."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    @property
    def p50_ms(self) -> float:
        return 1000 * statistics.median(self.latencies)

    @property
    def p99_ms(self) -> float:
        return 1000 * sorted(self.latencies)[int(0.99 * len(self.latencies))]


async def drive(
    url: str, work: Work, clients: int, seconds: float, warm_up_s: float = 1.0, per_second: float | None = None
) -> Timed:
    """What `clients` at once are answered within some seconds, after a warm-up that does not count.

    Args:
        url: where to.
        work: what is asked.
        clients: at once.
        seconds: for so long.
        warm_up_s: before.
        per_second: requests in each second, all clients together, evenly; what waits for a client is timed from when
            it was due. None: each client asks as soon as it has its answer.

    Raises:
        WrongAnswer: an answer was not what was expected.
    """
    request = _request(url, orjson.dumps(work.body))
    began = time.perf_counter()
    warm = began + warm_up_s
    until = warm + seconds
    latencies: list[float] = []
    numbers = count()

    async def due() -> float:
        if per_second is None:
            return time.perf_counter()
        at = began + next(numbers) / per_second
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        return at

    async def client() -> None:
        lane = _Lane(url)
        try:
            while (asked := await due()) < until:
                answer = await lane.ask(request)
                if asked >= warm:
                    latencies.append(time.perf_counter() - asked)
                if work.expect not in answer or b" 200 " not in answer[:13]:
                    raise WrongAnswer(f"{url} answered: {answer[:2000].decode(errors='replace')}")
        finally:
            lane.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    # The last answers come after the end: count the time that they took.
    return Timed(time.perf_counter() - warm, latencies)


def _request(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer none\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class _Lane(asyncio.Protocol):
    """One connection, opened anew where the server closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._come = bytearray()
        self._ends = 0
        """Bytes of the whole answer; -1 where its last chunk tells, -2 where the connection's end does."""
        self._stays = True
        """Whether the server keeps the connection behind its answer."""

    async def ask(self, request: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, self._host, self._port)
        self._come.clear()
        self._ends = 0
        self._answer = loop.create_future()
        if self._transport:
            self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("not a stream")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._come += data
        if not self._ends:
            self._ends = _end_of(self._come)
            self._stays = (
                not self._come.startswith(b"HTTP/1.0") and b"connection: close" not in self._come[:512].lower()
            )
        if (self._ends == -1 and self._come.endswith(b"\r\n0\r\n\r\n")) or 0 < self._ends <= len(self._come):
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._ends == -2:
            self._settle()
        elif self._answer and not self._answer.done():
            self._answer.set_exception(WrongAnswer("the server closed the connection before its answer"))

    def _settle(self) -> None:
        if not self._stays:
            self.close()
        if self._answer and not self._answer.done():
            self._answer.set_result(bytes(self._come))


def _end_of(come: bytearray) -> int:
    """Where an answer whose head has come ends; 0 if the head is not complete yet."""
    end = come.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = bytes(come[:end]).lower()
    if b"transfer-encoding: chunked" in head:
        return -1
    _, found, rest = head.partition(b"content-length:")
    return end + 4 + int(rest.partition(b"\r\n")[0]) if found else -2
