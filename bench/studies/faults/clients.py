"""Clients that ask, and that vanish wherever one can."""

import asyncio
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from bench.studies.faults.answers import Answer, Malformed, read
from bench.studies.faults.asks import Ask
from bench.studies.faults.watch import Queued

LATE_S = 1.0
"""Behind its deadline, beyond which an answer is late."""
PATIENCE_S = 30.0
"""Behind its deadline, after which a client gives up on an answer."""
FAILURES = ("internal_error", "upstream_error", "engine_unavailable", "timeout", "response.failed", "error")
"""What a right request may be told where something fails."""
_SLOW_READ, _SLOW_PAUSE_S = 256, 0.02


class Address(NamedTuple):
    """Where the server listens, and what its process and this one wait for."""

    host: str
    port: int
    queued: Queued


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    ask: Ask
    seconds: float
    answer: Answer | None = None
    """None of a client that vanished."""
    problem: str | None = None
    """What should not have happened."""
    queued_s: float = 0.0
    """Of the seconds, those in which the server or the client had no processor."""

    @property
    def late_s(self) -> float:
        """How long behind its deadline it came; below 0 before it."""
        return self.seconds - self.ask.deadline_s


async def make(ask: Ask, at: Address) -> Outcome:
    """Makes a request, as its client behaves."""
    queued = at.queued.seconds()
    outcome = await _timed(ask, at)
    outcome = replace(outcome, queued_s=at.queued.seconds() - queued)
    return replace(outcome, problem=outcome.problem or _fault(outcome))


def _fault(outcome: Outcome) -> str | None:
    """What is wrong with a well-formed answer."""
    ask, answer, late_s = outcome.ask, outcome.answer, outcome.late_s - outcome.queued_s
    if answer is None:
        return None
    if not ask.slow and late_s > LATE_S:
        return f"it came {late_s:.2f} s behind its deadline"
    if answer.error == "internal_error" and ask.mark.prm == "none" and ask.mark.fault == "none":
        return "a fault of the server's own"
    # A strategy that needs logprobs refuses an engine that gives none.
    fitting = ask.mark.fault == "unlabelled" and answer.error == "unsupported_parameter"
    return None if fitting or answer.error in (None, *FAILURES) else f"refused, with {answer.error}"


async def _timed(ask: Ask, at: Address) -> Outcome:
    began = time.monotonic()
    try:
        async with asyncio.timeout(ask.deadline_s + PATIENCE_S):
            answer = await _made(ask, at)
    except TimeoutError:
        return Outcome(ask, time.monotonic() - began, None, "it hung")
    except Malformed as error:
        return Outcome(ask, time.monotonic() - began, None, f"malformed: {error}")
    except OSError as error:
        return Outcome(ask, time.monotonic() - began, None, f"the connection failed: {error}")
    return Outcome(ask, time.monotonic() - began, answer)


async def _made(ask: Ask, at: Address) -> Answer | None:
    reader, writer = await asyncio.open_connection(at.host, at.port, limit=2**20)
    try:
        if ask.leave is not None:
            await _vanish(ask, at, reader, writer)
            return None
        writer.write(request(ask, at))
        return read(await (_slowly(reader) if ask.slow else reader.read()), ask)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def request(ask: Ask, at: Address) -> bytes:
    """The request as bytes; the connection ends with its answer."""
    content = orjson.dumps(ask.body)
    head = (
        f"POST {ask.path} HTTP/1.1\r\nhost: {at.host}:{at.port}\r\nconnection: close\r\nx-request-id: {ask.number}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _vanish(ask: Ask, at: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    whole = request(ask, at)
    body_at = whole.index(b"\r\n\r\n") + 4
    said = {"connected": 0, "head": body_at // 2, "body": (body_at + len(whole)) // 2}
    writer.write(whole[: said.get(ask.leave or "", len(whole))])
    match ask.leave:
        case "waiting":
            await asyncio.sleep(0.05 + 0.3 * (ask.number % 7) / 7)
        case "begun":
            await reader.read(64)
        case "streaming":
            for _ in range(3):
                await reader.read(300)
        case _:
            await asyncio.sleep(0.002 * (ask.number % 5))
    if ask.resets:
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _slowly(reader: asyncio.StreamReader) -> bytes:
    come = bytearray()
    while piece := await reader.read(_SLOW_READ):
        come += piece
        await asyncio.sleep(_SLOW_PAUSE_S)
    return bytes(come)
