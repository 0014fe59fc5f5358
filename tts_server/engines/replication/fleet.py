"""Several OpenAI-compatible upstreams of one model: whether they are up, and a question to any of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from strategies.core.contracts import TokenIds
from tts_server.engines.openai.probe import Found, NotServed
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.engines.replication.routing import LOST, Replica, Turns
from tts_server.errors import APIError, EngineUnavailable, UpstreamError

log = logging.getLogger(__name__)

T = TypeVar("T")
Looks = Sequence[Found | APIError]

_CHECK_TIMEOUT_S = 5.0


class Fleet:
    """Replicas that are looked after in the background.

    Args:
        replicas: none of them started.
        retries: see `Turns`.
        backoff_s: see `Turns`.
        check_s: between two looks at each of them.
    """

    def __init__(self, replicas: Sequence[Replica], *, retries: int, backoff_s: float, check_s: float) -> None:
        self.replicas = tuple(replicas)
        self.lead = replicas[0].engine
        """Knows what all of them can do."""
        self._retries = retries
        self._backoff_s = backoff_s
        self._check_s = check_s
        self._found: Found | None = None
        self._watches: list[asyncio.Task[None]] = []

    @property
    def healthy(self) -> bool:
        """Whether any of them is."""
        return self._found is not None and any(replica.healthy for replica in self.replicas)

    async def start(self) -> None:
        """Finds out what they can do; one that is down is looked for in the background.

        Raises:
            UpstreamError: none is up, or two do not serve the same model.
        """
        looks = await asyncio.gather(*map(_look, self.replicas))
        try:
            first, found = self._first(looks)
            self._check_same(first, found, looks)
        except UpstreamError:
            await self.close()
            raise
        self._found, self.lead = found, first.engine
        for replica, seen in zip(self.replicas, looks, strict=True):
            if isinstance(seen, Found):
                replica.engine.adopt(seen)
            else:
                log.warning("upstream %s: %s; going on without it", replica.origin, seen.message)
                replica.breaker.open()
        self._watches = [asyncio.create_task(self._look_after(replica)) for replica in self.replicas]

    async def close(self) -> None:
        """Cuts every connection; calls under way fail."""
        self._found = None
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(replica.engine.close() for replica in self.replicas))

    def turns(self) -> Turns:
        """Those that one call may ask.

        Raises:
            EngineUnavailable: they are not started, or closed.
        """
        self._ready()
        return Turns(self.replicas, self._retries, self._backoff_s)

    async def ask(self, call: Callable[[OpenAIEngine], Awaitable[T]]) -> T:
        """A question's answer, from whichever has the least to do.

        Raises:
            APIError: they refused or failed.
        """
        turns = self.turns()
        while True:
            replica = min(await turns.candidates(), key=lambda each: (each.live, each.asked))
            replica.asked += 1
            turns.take(replica)
            try:
                return await call(replica.engine)
            except LOST as error:
                turns.lose(replica, error)

    def _ready(self) -> Found:
        if self._found is None:
            raise EngineUnavailable("The engine is not started, or closed.")
        return self._found

    def _first(self, looks: Looks) -> tuple[Replica, Found]:
        for replica, seen in zip(self.replicas, looks, strict=True):
            if isinstance(seen, Found):
                return replica, seen
        errors = [f"{each.origin}: {error}" for each, error in zip(self.replicas, looks, strict=True)]
        raise UpstreamError(f"No upstream can be used. {' '.join(errors)}")

    def _check_same(self, first: Replica, found: Found, looks: Looks) -> None:
        for replica, seen in zip(self.replicas, looks, strict=True):
            if isinstance(seen, NotServed):
                raise UpstreamError(
                    f"The upstreams have to serve the same model. {first.origin} serves {found.model!r}; "
                    f"{replica.origin}: {seen.message}"
                )
            if isinstance(seen, Found) and (difference := found.unlike(seen)):
                raise UpstreamError(
                    f"The upstreams have to serve the same model. Unlike {first.origin}, {replica.origin} {difference}."
                )

    async def _look_after(self, replica: Replica) -> None:
        """Notices when an upstream goes and when it is back, and closes connections that are not needed."""
        while True:
            await asyncio.sleep(self._check_s)
            await replica.engine.upstreams[0].trim()
            match replica.breaker.state:
                case "closed":
                    await self._check(replica)
                case "half_open":
                    await self._try(replica)

    async def _check(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await replica.engine.check()
        except TimeoutError:
            replica.fail(UpstreamError(f"It did not answer within {_CHECK_TIMEOUT_S:g} s."))
        except APIError as error:
            replica.fail(error)

    async def _try(self, replica: Replica) -> None:
        """Asks what it serves, with small requests: it may have been started again with something else."""
        seen = await _look(replica)
        if isinstance(seen, APIError):
            log.info("upstream %s is still left alone: %s", replica.origin, seen.message)
            replica.breaker.fail()
        elif difference := self._ready().unlike(seen):
            log.warning("upstream %s is left out: unlike the others it %s", replica.origin, difference)
            replica.breaker.fail()
        else:
            log.warning("upstream %s is up", replica.origin)
            replica.engine.adopt(seen)
            replica.breaker.close()


async def _look(replica: Replica) -> Found | APIError:
    try:
        return await replica.engine.look()
    except APIError as error:
        return error


class FleetTokenizer:
    """The tokenizer of whichever upstream answers."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        return await self._fleet.ask(lambda one: one.tokenizer.encode(text, add_special_tokens=add_special_tokens))

    async def decode(self, token_ids: TokenIds) -> str:
        return await self._fleet.ask(lambda one: one.tokenizer.decode(token_ids))

    async def spell(self, token_ids: TokenIds) -> list[str]:
        return await self._fleet.ask(lambda one: one.tokenizer.spell(token_ids))

    async def describe(self) -> Mapping[str, Any]:
        return await self._fleet.ask(lambda one: one.tokenizer.describe())
