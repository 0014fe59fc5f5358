"""Several streams read as one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

_AHEAD = 64
"""Items that the streams may be ahead of whoever reads them."""


async def merged(
    begin: Sequence[Callable[[], AsyncGenerator[T, None]]], limit: int
) -> AsyncGenerator[tuple[int, T], None]:
    """What the streams say, each with its number, as it comes; up to `limit` of them run at once, begun in order.

    The first failure is raised as it is. Then, and when the iterator is closed, what still runs is cancelled and has
    ended.
    """
    if len(begin) == 1:
        async with aclosing(begin[0]()) as only:
            async for item in only:
                yield 0, item
        return
    told: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(_AHEAD)
    waiting = iter(enumerate(begin))

    async def work() -> None:
        try:
            for number, start in waiting:
                async with aclosing(start()) as stream:
                    async for item in stream:
                        await told.put((number, item))
        except Exception as error:
            await told.put(error)
        else:
            await told.put(None)

    workers = [asyncio.create_task(work()) for _ in range(min(limit, len(begin)))]
    try:
        working = len(workers)
        while working:
            match await told.get():
                case None:
                    working -= 1
                case BaseException() as error:
                    raise error
                case news:
                    yield news
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
