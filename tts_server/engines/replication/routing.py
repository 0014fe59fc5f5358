"""Which of several upstreams of the same model a call goes to, and when it goes to another one.

A prompt has a home, the replica that has its beginning in its prefix cache: the branches of a search begin with their
search's prompt, a conversation's turns with the turns before. A prompt that is new finds its home by rendezvous hashing
(Thaler and Ravishankar 1998), so that several servers, and this one after a restart, agree on it, and one replica's
leaving moves only what was at home there. A replica that has much more to do than others is passed over.
"""

import asyncio
import hashlib
import logging
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import orjson

from strategies.core.contracts import Prompt
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.engines.replication.breaker import Breaker
from tts_server.errors import APIError, EngineUnavailable, UpstreamError
from tts_server.upstream.body import MAX_LINE
from tts_server.upstream.client import MAX_RETRY_WAIT_S
from tts_server.upstream.errors import Busy, Unreached

log = logging.getLogger(__name__)

LOST = (EngineUnavailable, UpstreamError)
"""The failures that are a replica's, and not the request's."""

_REST_S = 1.0
"""How long a busy replica is left alone that does not say."""
_SPARE = 8
"""Samples that a new prompt's home may be ahead of the replica with the fewest."""
_ROOM = 32
"""Samples that a known prompt's home may have whatever the others have; beyond, twice as many as they."""
_TOKENS = 2048
_BYTES = 2**14
_SHORTEST = 64
"""Bytes of a beginning; a shorter one is in no cache, and all prompts might begin with it."""
_KNOWN = 1024


class Replica:
    """One upstream of several, and what became of the calls that it got."""

    def __init__(self, engine: OpenAIEngine, breaker: Breaker) -> None:
        self.engine = engine
        self.breaker = breaker
        self.live = 0
        """Samples that it is growing."""
        self.asked = 0
        """Times that it was asked for anything but samples."""
        self.retried = 0
        """Calls that it got once more after it had failed them."""
        self.failovers = 0
        """Samples and questions that another replica took over from it."""

    @property
    def origin(self) -> str:
        """Where it is, by which logs and metrics name it."""
        return self.engine.upstreams[0].url

    @property
    def healthy(self) -> bool:
        return self.breaker.state == "closed"

    @property
    def failed(self) -> Mapping[str, int]:
        """Answers that failed or did not come, by kind, as `Upstream` counts them."""
        return self.engine.upstreams[0].failed

    async def text(self, path: str, limit: int = MAX_LINE) -> str:
        return await self.engine.upstreams[0].text(path, limit)

    def fail(self, error: Exception) -> None:
        """Has the breaker know that a call failed."""
        if isinstance(error, Busy):
            self.breaker.rest(_REST_S if error.wait_s is None else error.wait_s)
            return
        was = self.breaker.state
        self.breaker.fail()
        if was == "closed" and not self.healthy:
            log.warning("upstream %s is left alone for a while: %s", self.origin, error)

    def weight(self, key: bytes) -> bytes:
        """How much it wants a prompt; the one that wants it most is its home."""
        return hashlib.blake2b(self.origin.encode() + b"\0" + key, digest_size=8).digest()


def beginning(prompt: Prompt) -> bytes:
    """A prompt's first bytes: those of a prompt that goes on from another one begin with the other's."""
    if prompt.token_ids:
        return (",".join(map(str, prompt.token_ids[:_TOKENS])) + ",").encode()
    return b"\n".join(orjson.dumps(message, default=dict) for message in prompt.messages)[:_BYTES]


class Homes:
    """The replicas at which prompts of late are at home."""

    def __init__(self) -> None:
        self._homes: OrderedDict[bytes, Replica] = OrderedDict()

    def choose(self, prompt: Prompt, candidates: Sequence[Replica]) -> Replica:
        """The replica that a prompt goes to, and will be at home at."""
        data = beginning(prompt)
        key = max((known for known in self._homes if data.startswith(known)), key=len, default=data)
        chosen = self._chosen(key, candidates)
        if len(key) >= _SHORTEST:
            self._homes[key] = chosen
            self._homes.move_to_end(key)
            if len(self._homes) > _KNOWN:
                self._homes.popitem(last=False)
        return chosen

    def _chosen(self, key: bytes, candidates: Sequence[Replica]) -> Replica:
        fewest = min(replica.live for replica in candidates)
        home = self._homes.get(key)
        if home and home in candidates and home.live <= max(_ROOM, 2 * fewest):
            return home
        ranked = sorted(candidates, key=lambda replica: replica.weight(key), reverse=True)
        return next(replica for replica in ranked if replica.live <= fewest + _SPARE)


class Turns:
    """The replicas that one call may ask, one after the other, in rounds with a pause between.

    Args:
        replicas: all there are.
        retries: rounds after the first one; also, how many replicas may break down over one call. What has broken some
            may break them all.
        backoff_s: before the second round; doubles with each.
    """

    def __init__(self, replicas: Sequence[Replica], retries: int, backoff_s: float) -> None:
        self._replicas = replicas
        self._retries = retries
        self._backoff_s = backoff_s
        self._round = 0
        self._breakdowns = 0
        self._failed: set[Replica] = set()
        """In this round."""
        self._ever: set[Replica] = set()
        self._last: Replica | None = None
        self._error: APIError | None = None

    def fork(self) -> "Turns":
        """The same for a part of the call, which goes on by itself."""
        fork = Turns(self._replicas, self._retries, self._backoff_s)
        fork._round, fork._breakdowns, fork._error = self._round, self._breakdowns, self._error
        fork._failed, fork._ever, fork._last = {*self._failed}, {*self._ever}, self._last
        return fork

    async def candidates(self) -> list[Replica]:
        """Those that may be asked now; waits for the next round where there are none.

        Raises:
            APIError: none is left; the last failure, if there was one.
        """
        while not (found := [r for r in self._replicas if r.breaker.admits and r not in self._failed]):
            rests = [replica.breaker.rest_s for replica in self._replicas if replica.healthy]
            wait_s = max(self._backoff_s * 2.0**self._round * random.uniform(0.75, 1.25), min(rests, default=0.0))
            if self._round == self._retries or wait_s > MAX_RETRY_WAIT_S:
                raise self._error or self._none()
            self._round += 1
            self._failed.clear()
            await asyncio.sleep(wait_s)
        return found

    def take(self, replica: Replica, samples: int = 1) -> None:
        """Notes who is asked now, for how many samples."""
        replica.retried += replica in self._ever
        if self._last not in (None, replica):
            self._last.failovers += samples
        self._last = replica

    def lose(self, replica: Replica, error: APIError) -> None:
        """Notes that a replica has failed the call.

        Raises:
            APIError: the error, if too many have broken down.
        """
        replica.fail(error)
        self._failed.add(replica)
        self._ever.add(replica)
        self._error = error
        # Whoever was not reached, or too busy, has not seen what might break it.
        self._breakdowns += not isinstance(error, (Unreached, Busy))
        if self._breakdowns > self._retries:
            raise error

    def _none(self) -> EngineUnavailable:
        busy = sum(replica.healthy for replica in self._replicas)
        return EngineUnavailable(f"No upstream takes requests now: {len(self._replicas) - busy} down, {busy} busy.")
