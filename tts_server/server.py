"""The process: an engine and the HTTP server around it, from start to the last drained request."""

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from rich.console import Console

from prm import PRMError
from strategies.answers import symbolic
from strategies.core.plain_words import sentence
from tts_server.app_state import AppState
from tts_server.config import ConfigError, Settings
from tts_server.engines.base import ServedEngine, Slotted
from tts_server.middleware.http1 import Http1
from tts_server.planning.service import Lifetime
from tts_server.startup import data_dir
from tts_server.startup.loading import SIGNALS, Loading

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Of an idle connection: longer than load balancers keep theirs, or they send a request into one that just closes."""
GARBAGE = 20_000
"""New objects after which Python looks for cycles among them."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The event loop to serve with: uvloop, which takes a third less time a request; Python's own on Windows."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415

    return uvloop.new_event_loop()


async def serve(
    app: FastAPI, settings: Settings, on_ready: Callable[[str], None], loading: Loading | None = None
) -> None:
    """Runs until a signal; then requests under way get `grace_s` to end, new ones are refused, and probes are told that
    it is not ready. A second signal ends it at once.

    Args:
        app: as `create_app` made it.
        settings: where to listen.
        on_ready: called with the base URL once requests are answered.
        loading: shows what is done until then, and says what signals do.

    Raises:
        ConfigError: the address cannot be listened on; found out before the engine takes its time to start. Or a
            reward model cannot be run, or does not score as it should.
    """
    state = AppState.of(app)
    service = state.service
    loading = loading or Loading(Console(stderr=True))
    loop, starting = asyncio.get_running_loop(), asyncio.current_task()

    def give_up(number: int) -> None:
        loading.interrupted(number)
        if starting:
            starting.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, give_up, number)
    with bound(settings.host, settings.port) as address:
        if why := await asyncio.to_thread(data_dir.fault, settings.data_dir):
            log.warning(
                "data_dir: %s cannot be written to (%s): no traces are kept, and files and batches are refused; "
                "make it writable, or set data_dir to another directory",
                settings.data_dir,
                why,
            )
        async with AsyncExitStack() as running:
            if state.tracing:
                running.push_async_callback(state.tracing.close)
            running.push_async_callback(service.engine.close)
            symbolic.begin()
            loading.begin(f"loading {service.engine.model}")
            await _loaded(service.engine)
            if settings.max_live_samples is None and isinstance(service.engine, Slotted):
                state.admission.fit(service.engine.slots)
            running.push_async_callback(state.traces.close)
            state.traces.start()
            loading.begin("loading the reward models")
            for prm in service.owned:
                running.push_async_callback(prm.close)
                await _started(prm)
            running.push_async_callback(state.batches.close)
            await state.batches.start()
            await _Server(app, settings, on_ready, loading.say).serve([address])


async def _loaded(engine: ServedEngine) -> None:
    try:
        await engine.start()
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"engine: {sentence(error)}") from error


async def _started(prm: Lifetime) -> None:
    try:
        await prm.start()
    except (PRMError, ImportError, OSError) as error:
        raise ConfigError(f"prm: {sentence(error)}") from error


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, and does not listen yet."""
    address = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        address.bind((host, port))
    except OSError as error:
        address.close()
        raise ConfigError(f"host, port: cannot listen at {host} port {port}: {error.strerror}") from None
    return address


def http_config(app: FastAPI, **options: Any) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        http=Http1,
        # No route is a WebSocket: an offer of one is answered in HTTP.
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        **options,
    )


class _Server(uvicorn.Server):
    """Uvicorn with its signals kept inside: it raises them again when it ends, before the engine is closed."""

    def __init__(
        self, app: FastAPI, settings: Settings, on_ready: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        super().__init__(
            http_config(
                app,
                # Its lines go where all others go, and through the same formatter.
                log_config=None,
                # The grace is over when this begins.
                timeout_graceful_shutdown=1,
            )
        )
        self._on_ready = on_ready
        self._say = say
        self._drain, self._batches = AppState.of(app).drain, AppState.of(app).batches
        self._grace_s = settings.grace_s
        logging.getLogger("uvicorn.error").addFilter(_is_news)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self._drain.begun:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            # What start-up made stays: to look through it again and again would hold every request up for long.
            gc.collect()
            gc.freeze()
            # A request makes some hundred objects that live until it ends: looked through less often, they are gone.
            gc.set_threshold(GARBAGE, 20, 20)
            self._on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        is_idle = not (self.server_state.tasks or self._batches.is_busy)
        if self._drain.begun and (is_idle or self._drain.is_over):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._cut()
        await super().shutdown(sockets)
        await self._cut()

    async def _cut(self) -> None:
        """Ends what the grace or a second signal cuts: it has to be gone before its engine is."""
        cut = list(self.server_state.tasks)
        for task in cut:
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain.begun:
            self._say(f"aborting: {self._under_way}")
            self.force_exit = self.should_exit = True
        else:
            busy = self.server_state.tasks or self._batches.is_busy
            self._say(f"ending: {self._under_way}, at most {self._grace_s:g} s; again aborts" if busy else "ending")
            self._drain.begin(self._grace_s)

    @property
    def _under_way(self) -> str:
        count = len(self.server_state.tasks)
        return f"{count} request{'s' * (count != 1)}" + " and a batch" * self._batches.is_busy

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """That a request was cut at the end is what was asked for, and no error of the application."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
