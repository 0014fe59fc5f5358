"""The store for code that must not block: its one thread does one thing at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from tts_server.batches.database import Database
from tts_server.batches.files import Files
from tts_server.batches.jobs import Jobs

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """Files and batches on disk."""

    def __init__(self, thread: ThreadPoolExecutor, database: Database, files: Files, jobs: Jobs) -> None:
        self._thread = thread
        self._database = database
        self._files = files
        self._jobs = jobs

    @classmethod
    async def open(cls, path: Path, max_bytes: int) -> "Store":
        """The store in a file, which is made where it is missing.

        Raises:
            StoreUnusable: it cannot be used; StoreTaken, because another server uses it.
            StorageFull: the disk is full.
        """
        thread = ThreadPoolExecutor(1, "batches")

        def opened() -> "Store":
            database = Database(path, max_bytes)
            try:
                return cls(thread, database, Files(database), Jobs(database))
            except BaseException:
                database.close()
                raise

        try:
            return await asyncio.get_running_loop().run_in_executor(thread, opened)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def files(self, method: Callable[Concatenate[Files, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of `Files` returns."""
        return await self._do(partial(method, self._files, *args, **kwargs))

    async def jobs(self, method: Callable[Concatenate[Jobs, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of `Jobs` returns."""
        return await self._do(partial(method, self._jobs, *args, **kwargs))

    async def has_room(self) -> bool:
        """Whether more may be stored."""
        return await self._do(self._database.room) > 0

    def close(self) -> None:
        """Ends what is under way and closes the file."""
        self._thread.submit(self._database.close)
        self._thread.shutdown()

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
