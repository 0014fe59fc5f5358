"""Which line of which batch is answered when: where interactive requests leave room, and each exactly once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import orjson

from strategies.core.account import Account
from tts_server.admission.interactive_load import Load
from tts_server.batches.files import Files
from tts_server.batches.jobs import Jobs
from tts_server.batches.lines import LineReader
from tts_server.batches.records import Answer, Batch, Ending, LineError, Request
from tts_server.batches.shares import Shares, cost_of
from tts_server.batches.sharing import Sharing
from tts_server.batches.store import Store
from tts_server.batches.validation import validate
from tts_server.config import BatchConfig
from tts_server.errors import StorageFull

log = logging.getLogger(__name__)

Ask = Callable[[str, bytes, str, list[Account]], Awaitable[Answer]]
"""An endpoint, a body and its owner: what the server says. The list gets the accounts that pay for it."""

RETRY_S = 5.0
"""Until something is tried again that the disk or a fault of ours kept from being done."""
LOOK_S = 1.0
"""How often it is looked whether the engine is up again."""
SWEEP_S = 3600.0
"""How often files are looked for that are over their time."""
TRIES = 3
"""How often a request is sent that the server fails to answer, as OpenAI's clients do."""
UNAVAILABLE_TRIES = 10
"""How often it is sent to an engine that seemed to be up: one that brings the engine down each time must end too."""
SPENT, UNAVAILABLE = 429, 503
"""The statuses of an owner that has no quota left for now, and of a server without its engine."""
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0
"""Between two tries of one request; each wait is twice the one before."""


class Runner:
    """Validates batches and answers their lines.

    A line is begun where the lines and the interactive requests under way are together fewer than `concurrency`; the
    batches take turns. Lines under way are not interrupted by requests that come later.

    Args:
        store: what is to do, and where answers go.
        shares: the budgets that lines share.
        ask: answers a line.
        model: batches that were made for another one wait for a server that serves it.
        load: the interactive requests.
        healthy: whether the engine can answer.
        limits: of batches.
        max_line_bytes: of an input file's line.
    """

    def __init__(
        self,
        store: Store,
        shares: Shares,
        ask: Ask,
        model: str,
        load: Load,
        healthy: Callable[[], bool],
        limits: BatchConfig,
        max_line_bytes: int,
    ) -> None:
        self._store = store
        self._shares = shares
        self._ask = ask
        self._model = model
        self._load = load
        self._healthy = healthy
        self._limits = limits
        self._max_line_bytes = max_line_bytes
        self._running: dict[str, dict[int, asyncio.Task[None]]] = {}
        self._served: dict[str, int] = {}
        self._turn = count(1)
        self._waits: dict[str, float] = {}
        self._wants_room = False
        self._is_full = False
        self._woken = asyncio.Event()
        self._submitted = asyncio.Event()
        load.on_fewer = self._on_fewer

    @property
    def is_busy(self) -> bool:
        """Whether lines are under way."""
        return any(self._running.values())

    def wake(self) -> None:
        """Something has changed: a batch was made or is to be cancelled."""
        self._woken.set()
        self._submitted.set()

    async def run(self) -> None:
        """Works until it is cancelled; what is under way then is asked again by the next server."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for step in (self._validate_all, self._work, self._sweep):
                    tasks.create_task(_for_ever(step))
        finally:
            self._load.on_fewer = lambda: None
            for id_ in list(self._running):
                await self._stop(id_)

    async def _validate_all(self) -> None:
        self._submitted.clear()
        for batch in await self._store.jobs(Jobs.open):
            if batch.status == "validating" and batch.model == self._model:
                await self._validate(batch)
        await self._submitted.wait()

    async def _validate(self, batch: Batch) -> None:
        shared = None if batch.total_tokens is None else batch.model
        reader = LineReader(batch.endpoint, self._limits.max_lines, self._max_line_bytes, shared)
        try:
            await validate(batch, self._store, reader)
        except StorageFull as error:
            await self._fail(batch, LineError("storage_full", error.message))
        except Exception:
            log.exception("%s: the input file could not be validated", batch.id)
            await self._fail(batch, LineError("internal_error", "The server failed to validate the input file."))
        self._woken.set()

    async def _fail(self, batch: Batch, error: LineError) -> None:
        await self._store.jobs(Jobs.fail, batch.id, [error], int(time.time()))

    async def _work(self) -> None:
        self._woken.clear()
        opened = await self._store.jobs(Jobs.open)
        ended = [(batch, ending) for batch in opened if (ending := _ending(batch)) is not None]
        for batch, ending in ended:
            await self._end(batch, ending)
        if ended:
            return
        self._waits = {id_: until for id_, until in self._waits.items() if until > time.monotonic()}
        ours = [batch for batch in opened if batch.status == "in_progress" and batch.model == self._model]
        going = [batch for batch in ours if batch.id not in self._waits]
        await self._begin(going)
        await self._pause(opened, going)

    async def _begin(self, going: list[Batch]) -> None:
        """Begins lines while there is room for more."""
        # Who was served last stands last.
        waiting = sorted(going, key=lambda batch: self._served.get(batch.id, 0))
        self._wants_room = False
        while waiting and await self._can_begin():
            self._wants_room = self._room() <= 0
            if self._wants_room:
                return
            batch = waiting.pop(0)
            lines = self._running.setdefault(batch.id, {})
            sharing = await self._shares.of(batch)
            if sharing and not sharing.has_room:
                # The end of one of its lines wakes it.
                continue
            request = await self._store.jobs(Jobs.next, batch.id, tuple(lines))
            if request is not None and sharing and sharing.is_spent:
                await self._shares.refuse(batch, request, sharing)
                self._woken.set()
                waiting.append(batch)
            elif request is not None:
                granted = sharing.grant(request) if sharing else request
                lines[request.number] = asyncio.create_task(self._line(batch, granted, sharing))
                self._served[batch.id] = next(self._turn)
                waiting.append(batch)

    async def _can_begin(self) -> bool:
        """Whether there is an engine that answers, and room for what it says."""
        if not self._healthy():
            return False
        has_room = await self._store.has_room()
        if not has_room and not self._is_full:
            log.warning("batches: no line is begun until there is room: all that may be stored is")
        self._is_full = not has_room
        return has_room

    def _room(self) -> int:
        under_way = sum(len(lines) for lines in self._running.values())
        return self._limits.concurrency - self._load.interactive - under_way

    def _on_fewer(self) -> None:
        if self._wants_room and self._room() > 0:
            self._woken.set()

    async def _pause(self, opened: list[Batch], going: list[Batch]) -> None:
        """Waits until something has changed, or the next batch is over its time."""
        ends = [batch.expires_at - time.time() for batch in opened]
        ends += [until - time.monotonic() for until in self._waits.values()]
        # That the engine is up again, or that there is room on the disk, tells nobody.
        looks = [LOOK_S] if going and not self._wants_room else []
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min([*ends, *looks, SWEEP_S]))):
                await self._woken.wait()

    async def _line(self, batch: Batch, request: Request, sharing: Sharing | None) -> None:
        accounts: list[Account] = []
        answered = False
        try:
            answer = await self._answered(batch, request, accounts)
            if answer.status == SPENT:
                # It gives its place to others meanwhile.
                self._waits[batch.id] = time.monotonic() + (answer.retry_after_s or RETRY_S)
            else:
                await self._keep(batch, request, answer, cost_of(accounts))
                answered = True
                if sharing and answer.good:
                    sharing.learn(orjson.loads(answer.body))
        except Exception:
            log.exception("%s: line %d could not be answered; it will be tried again", batch.id, request.number)
            await asyncio.sleep(RETRY_S)
        finally:
            del self._running[batch.id][request.number]
            if sharing:
                sharing.end(request.number, cost_of(accounts), answered=answered)
            self._woken.set()
            if sharing and not answered and accounts:
                await self._store.jobs(Jobs.pay, batch.id, cost_of(accounts))

    async def _answered(self, batch: Batch, request: Request, accounts: list[Account]) -> Answer:
        """What the server says in the end: what it fails to answer is asked again."""
        failures = 0
        for attempt in range(UNAVAILABLE_TRIES):
            while not self._healthy():  # noqa: ASYNC110  an engine tells nobody that it is up again
                await asyncio.sleep(LOOK_S)
            answer = await self._ask(batch.endpoint, request.body, batch.owner, accounts)
            failures += answer.status != UNAVAILABLE
            if answer.status < 500 or not answer.retries or failures >= TRIES:
                break
            log.info("%s: line %d was answered %d; it is asked again", batch.id, request.number, answer.status)
            await asyncio.sleep(min(MAX_WAIT_S, FIRST_WAIT_S * 2.0**attempt))
        return answer

    async def _keep(self, batch: Batch, request: Request, answer: Answer, cost: int) -> None:
        """Stores an answer; on a full disk it waits for room, for to ask again would cost again."""
        while True:
            try:
                await self._store.jobs(Jobs.answer, batch, request, answer, cost)
            except StorageFull as error:
                log.error("%s: line %d waits to be stored: %s", batch.id, request.number, error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _end(self, batch: Batch, ending: Ending) -> None:
        await self._stop(batch.id)
        if ending == "completed":
            await self._store.jobs(Jobs.finalize, batch.id, int(time.time()))
        while not await self._store.jobs(Jobs.end, batch, ending, int(time.time())):
            pass
        log.info("%s: %s", batch.id, ending)

    async def _stop(self, id_: str) -> None:
        """Ends the lines under way of one batch."""
        lines = list(self._running.get(id_, {}).values())
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)
        self._running.pop(id_, None)
        self._served.pop(id_, None)
        self._waits.pop(id_, None)
        self._shares.drop(id_)

    async def _sweep(self) -> None:
        await self._store.files(Files.drop_expired, time.time())
        await asyncio.sleep(SWEEP_S)


def _ending(batch: Batch) -> Ending | None:
    """How a batch ends that has to end now."""
    if batch.status == "cancelling":
        return "cancelled"
    if batch.status == "finalizing" or (batch.status == "in_progress" and batch.is_answered):
        return "completed"
    return "expired" if batch.expires_at <= time.time() else None


async def _for_ever(step: Callable[[], Awaitable[None]]) -> None:
    """Goes on whatever happens: one batch's fault must not end the others."""
    while True:
        try:
            await step()
        except StorageFull as error:
            log.error("batches: %s It is tried again.", error.message)
            await asyncio.sleep(RETRY_S)
        except Exception:
            log.exception("batches: failed; it is tried again")
            await asyncio.sleep(RETRY_S)
