"""Concurrent work of one request: calls at once, up to a limit, and streams read as one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from strategies.core.contracts import Progress

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 64
"""Items that the streams may be ahead of whoever reads them."""


async def together(works: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Runs all at once; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__


async def pooled(call: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int) -> list[R]:
    """Calls `call` on each item, in order and up to `limit` at once; the results in the items' order.

    The first failure, or cancelling the caller, cancels the rest; the failure is raised as it is.
    """
    results: dict[int, R] = {}
    queue = iter(enumerate(items))

    async def work() -> None:
        for i, item in queue:
            results[i] = await call(item)

    await together([work() for _ in range(min(limit, len(items)))])
    return [results[i] for i in range(len(items))]


async def telling(
    work: Coroutine[Any, Any, None], lines: "asyncio.Queue[str | None]"
) -> AsyncGenerator[Progress, None]:
    """Runs `work` and yields the lines that it puts into the queue; closing it cancels the work."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        while (line := await lines.get()) is not None:
            yield Progress(line)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def merged(
    begin: Sequence[Callable[[], AsyncGenerator[T, None]]], limit: int
) -> AsyncGenerator[tuple[int, T], None]:
    """Yields the items of several streams, each with its stream's number, as they come.

    Up to `limit` streams run at once, begun in order. The first failure is raised as it is. Then, and when the iterator
    is closed, what still runs is cancelled and has ended.
    """
    if len(begin) == 1:
        async with aclosing(begin[0]()) as only:
            async for item in only:
                yield 0, item
        return
    items: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(_AHEAD)
    waiting = iter(enumerate(begin))

    async def work() -> None:
        try:
            for number, start in waiting:
                async with aclosing(start()) as stream:
                    async for item in stream:
                        await items.put((number, item))
        except Exception as error:
            await items.put(error)
        else:
            await items.put(None)

    workers = [asyncio.create_task(work()) for _ in range(min(limit, len(begin)))]
    try:
        working = len(workers)
        while working:
            match await items.get():
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
