"""A request's work ends when nobody waits for its answer any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive


class ClientLeft(Exception):
    """The client closed its connection before the answer; nobody reads what it is told."""


@asynccontextmanager
async def connected(receive: Receive) -> AsyncIterator[None]:
    """Cancels what is done meanwhile when the client leaves.

    Raises:
        ClientLeft: the client left before the work was done; the work has ended.
    """
    worker = asyncio.current_task()
    if worker is None:
        raise RuntimeError("there is no task to cancel")
    watch, before = _Watch(receive, worker), worker.cancelling()
    watching = asyncio.create_task(watch.run())
    try:
        yield
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
