"""The samples of one call as streams of one sample each."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from strategies.core.contracts import Chunk

_AHEAD = 64
"""Chunks that the streams may be ahead of whoever reads them."""


_SEEDS = 2**64


def sample_seed(seed: int, index: int) -> int:
    """The seed of one sample of a seeded call."""
    return (seed + index + _SEEDS // 2) % _SEEDS - _SEEDS // 2


async def in_parallel(streams: Sequence[AsyncGenerator[Chunk, None]]) -> AsyncGenerator[Chunk, None]:
    """Interleaves streams of one sample each; one that fails ends with `error`, and if all do, its cause is raised."""
    queue: asyncio.Queue[Chunk] = asyncio.Queue(_AHEAD)

    async def pump(index: int, stream: AsyncGenerator[Chunk, None]) -> None:
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    await queue.put(chunk)
        except Exception as error:
            await queue.put(Chunk(index, finish_reason="error", error=error))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    failures: list[Chunk] = []
    cause: Exception | None = None
    growing, told, alive = len(streams), 0, False
    try:
        while growing:
            chunk = await queue.get()
            growing -= chunk.finish_reason is not None
            if chunk.error is None:
                alive = True
                yield chunk
            else:
                failures.append(chunk)
                cause = cause or chunk.error
                if len(failures) == len(streams):
                    raise cause
            # Not before one sample grows: if all fail, the call has to fail as if it had never begun.
            while alive and told < len(failures):
                yield failures[told]
                told += 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
