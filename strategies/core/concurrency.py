"""Concurrent work of one request."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any

from strategies.core.contracts import Progress


async def together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Runs all at once; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


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
