"""One call of an engine asked in several parts, each of some of its samples."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import accumulate

from strategies.core.concurrency import merged
from strategies.core.contracts import Chunk

Begin = Callable[[int], AsyncGenerator[Chunk, None]]
"""Draws so many samples."""


async def in_parts(begin: Begin, sizes: Sequence[int]) -> AsyncGenerator[Chunk, None]:
    """The chunks of all samples, as one call would give them.

    A part that fails ends the samples that it was growing with `error`.

    Raises:
        Exception: the first cause, if every sample of every part has failed.
    """
    starts = accumulate(sizes, initial=0)
    parts = [partial(_part, begin, size, start) for size, start in zip(sizes, starts, strict=False)]
    failed: list[Chunk] = []
    alive = False
    async with aclosing(merged(parts, len(parts))) as told:
        async for _, chunk in told:
            if chunk.error and not alive:
                failed.append(chunk)
                if len(failed) == sum(sizes):
                    raise failed[0].error or chunk.error
                continue
            if not alive:
                alive = True
                # Not before one sample grows: if all fail, the call has to fail as if it had never begun.
                for held in failed:
                    yield held
            yield chunk


async def _part(begin: Begin, size: int, start: int) -> AsyncGenerator[Chunk, None]:
    growing = set(range(size))
    try:
        async with aclosing(begin(size)) as chunks:
            async for chunk in chunks:
                if chunk.finish_reason:
                    growing.discard(chunk.index)
                yield replace(chunk, index=start + chunk.index)
    except Exception as error:
        for index in sorted(growing):
            yield Chunk(start + index, finish_reason="error", error=error)
