"""A request's work ends when nobody waits for its answer any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientLeft(Exception):
    """The client closed its connection before the answer; nobody reads what it is told."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. When the client leaves, or the caller is cancelled, the work is cancelled and has ended.

    Raises:
        ClientLeft: the client left before the work was done.
    """
    worker = asyncio.current_task()
    if worker is None:
        raise RuntimeError("there is no task to cancel")
    watch, before = _Watch(receive, worker), worker.cancelling()
    watching = asyncio.create_task(watch.run())
    try:
        return await work
    except asyncio.CancelledError:
        # The server may end the request at the same time, which counts for more.
        if watch.left and worker.cancelling() == before + 1:
            raise ClientLeft from None
        raise
    finally:
        if watch.left:
            worker.uncancel()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class _Watch:
    """Cancels a task when its client leaves."""

    def __init__(self, receive: Receive, worker: asyncio.Task[Any]) -> None:
        self.left = False
        self._receive = receive
        self._worker = worker

    async def run(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._worker.cancel()
