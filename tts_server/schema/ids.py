"""Ids of answers, traces and requests."""

import random
import time

_random = random.Random()


def unique() -> str:
    """The time in milliseconds and 80 random bits as 32 hexadecimal digits, as RFC 9562's version 7 has them.

    So later ones sort behind earlier ones, and a table that is kept by them grows at its end. Nobody's secret: who may
    read what an id names is looked at elsewhere. So the kernel is not asked for each, which for an answer's three ids
    takes a twentieth of the server's time.
    """
    return f"{time.time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"


def numbered(trace_id: str, place: int) -> str:
    """The trace id of a request's search at a place: the first has the answer's own, the later get numbers."""
    return f"{trace_id}-{place}" if place else trace_id
