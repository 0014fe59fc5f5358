"""Many calls at once, but not too many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def pooled(call: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int) -> list[R]:
    """Calls `call` on each item, in order and up to `limit` at once; the results in the items' order.

    The first failure, or cancelling the caller, cancels the rest; the failure is raised as it is.
    """
    results: dict[int, R] = {}
    queue = iter(enumerate(items))

    async def work() -> None:
        for i, item in queue:
            results[i] = await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, len(items))):
                group.create_task(work())
    except ExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [results[i] for i in range(len(items))]
