"""Files and batches of one server: opened when first needed, resumed after a restart, ended with the server."""

import asyncio
import logging
import os
from collections.abc import Sequence
from functools import partial

from starlette.types import ASGIApp

from tts_server.admission.interactive_load import Load
from tts_server.admission.shutdown import Drain
from tts_server.batches.database import StoreTaken, StoreUnusable
from tts_server.batches.dispatch import dispatch
from tts_server.batches.runner import Runner
from tts_server.batches.shares import Shares
from tts_server.batches.store import Store
from tts_server.config import ConfigError, Settings
from tts_server.engines.base import ServedEngine
from tts_server.errors import EngineUnavailable, StorageFull

log = logging.getLogger(__name__)

FILE = "batches.sqlite3"
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""What a batch may ask, where the server has it."""


class Batches:
    """What the routes of files and batches stand on.

    Args:
        app: answers the lines.
        engine: whose model they ask.
        load: the requests that go before them.
        drain: from when on no line is begun.
        settings: where all is kept, and how much of it.
        paths: those that the app has.
        scored: whether there is a reward model.
    """

    def __init__(
        self,
        app: ASGIApp,
        engine: ServedEngine,
        load: Load,
        drain: Drain,
        settings: Settings,
        paths: Sequence[str],
        *,
        scored: bool,
    ) -> None:
        self.limits = settings.batch
        self.model = engine.model
        self.endpoints = [endpoint for endpoint in ENDPOINTS if endpoint in paths]
        self._app = app
        self._scored = scored
        self._engine = engine
        self._load = load
        self._drain = drain
        self._max_line_bytes = settings.max_body_bytes
        self._path = settings.data_dir / FILE
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._runner: Runner | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Goes on with what a former server left; without that nothing is opened before it is needed.

        Raises:
            ConfigError: what it left cannot be read.
        """
        if not self._is_there:
            return
        try:
            await self._open()
        except StoreTaken as error:
            log.warning("no files and batches here: %s", error)
        except StorageFull as error:
            log.error("batches wait until somebody asks for one: %s", error.message)
        except StoreUnusable as error:
            raise ConfigError(f"data_dir: {error}") from error

    async def store(self) -> Store:
        """The store, with somebody who works on what is in it.

        Raises:
            EngineUnavailable: another server uses it, it cannot be used, or this one goes down.
        """
        if self._closed:
            raise EngineUnavailable("The server is going down.")
        try:
            return await self._open()
        except StoreUnusable as error:
            log.error("files and batches: %s", error)
            why = "another server of this machine has them" if isinstance(error, StoreTaken) else "see the server's log"
            raise EngineUnavailable(f"Files and batches are not available here: {why}.") from error

    async def _open(self) -> Store:
        async with self._opening:
            if self._store is None:
                store = await Store.open(self._path, self.limits.max_stored_bytes)
                ask = partial(dispatch, self._app)
                shares = Shares(store, self.limits.concurrency, scored=self._scored)
                runner = Runner(
                    store, shares, ask, self.model, self._load, self._is_healthy, self.limits, self._max_line_bytes
                )
                self._task = asyncio.create_task(_run(runner, store))
                self._store, self._runner = store, runner
            return self._store

    @property
    def _is_there(self) -> bool:
        """Whether a former server left something; pathlib would raise where the directory may not be looked into."""
        return os.path.exists(self._path)

    def _is_healthy(self) -> bool:
        return self._engine.healthy and not self._drain.begun

    @property
    def is_busy(self) -> bool:
        """Whether lines are under way."""
        return self._runner is not None and self._runner.is_busy

    def wake(self) -> None:
        """A batch was made, or is to be cancelled."""
        if self._runner is not None:
            self._runner.wake()

    async def close(self) -> None:
        """Stops; what is not answered yet is left to the next server."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _run(runner: Runner, store: Store) -> None:
    try:
        await runner.run()
    finally:
        store.close()
