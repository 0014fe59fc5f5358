"""Which call of which request the engine gets next, where more is asked of it than it grows at once.

Fair between owners of API keys, then between the requests of one owner: whoever has had least of the engine is next,
counted in tokens (generated ones, and a quarter of the prompt's that had to be computed, as they are commonly priced),
as the virtual token counter of Sheng et al. 2401.00588 does. A sample that grows counts as what samples have cost
lately, until it ends and its real cost is known. Who comes, or comes back after a pause, begins where the others are:
unused turns are not saved up. The lines of batches come after all interactive requests.

A call is let in as soon as there is room for its first sample, so no call waits for ever and nobody waits while there
is room; in return as many samples more than `limit` may grow as the last call has beside its first. `admitted` keeps
calls small where there is no room for all of them. Where nobody waits there is neither a lock nor a task.
"""

import asyncio
import time
from collections.abc import Callable

from strategies.core.contracts import Chunk
from tts_server.admission.fair_share import Share, Turns
from tts_server.admission.rate import Clock, Rate

__all__ = ["Admission", "Flow", "Permit"]

STALL_S = 1.0
"""A call whose consumer has not come back for so long lends its places to those that wait: the engine is done with
what a slow client has not read."""
PART = 4
"""Samples of one part of a call."""
_PROMPT_TOKEN = 0.25
"""What a computed prompt token counts beside a generated one."""
_FIRST_GUESS = 64.0
"""Tokens of a sample, before any has ended."""
_MEMORY = 64
"""Samples over which the cost of one is averaged."""

_READ, _PARKED, _SEEN, _LENT = range(4)
"""Where a call's consumer is: it waits for the engine, has a chunk in its hands, has had it for a look, for two."""


class _Tier:
    """All that come before, or after, all others."""

    __slots__ = ("owners", "turns")

    def __init__(self) -> None:
        self.owners: dict[str, _Owner] = {}
        self.turns = Turns[_Owner]()


class _Owner(Share):
    """All requests of one owner."""

    __slots__ = ("tier", "turns", "waiting")

    def __init__(self, tier: _Tier) -> None:
        super().__init__()
        self.tier = tier
        self.waiting = 0
        """Samples of its calls that wait."""
        self.turns = Turns[Flow]()


class Flow(Share):
    """One request's calls of the engine."""

    __slots__ = ("_admission", "calls", "owner")

    def __init__(self, admission: "Admission", owner: _Owner) -> None:
        super().__init__()
        self._admission = admission
        self.owner = owner
        self.calls: dict[_Call, None] = {}
        """Those that wait, in order."""

    def has_room(self, n: int) -> bool:
        """Whether n samples may grow at once without one too many."""
        return self._admission.live + n <= self._admission.limit

    def parts(self, n: int) -> list[int]:
        """The sizes of the calls in which n samples are asked for: what there is room for, and small ones."""
        first = min(n, max(PART, self._admission.limit - self._admission.live))
        rest = n - first
        return [first, *[PART] * (rest // PART), *([rest % PART] if rest % PART else [])]

    async def take(self, n: int) -> "Permit":
        """Waits until a call of n samples may begin. Who is cancelled has taken nothing."""
        admission = self._admission
        return admission.grant(self, n) if admission.has_room else await admission.wait(self, n)


class _Call:
    """A call that waits."""

    __slots__ = ("granted", "n", "since")

    def __init__(self, n: int, since: float) -> None:
        self.n = n
        self.since = since
        self.granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()


class Permit:
    """Places of one call's samples; each is given back when its sample ends, and the rest with `close`."""

    __slots__ = ("_admission", "_flow", "_left", "_n", "_paid", "_state", "_used")

    def __init__(self, admission: "Admission", flow: Flow, n: int) -> None:
        self._admission = admission
        self._flow = flow
        self._n = self._left = n
        self._used = self._paid = 0.0
        self._state = _READ

    def count(self, chunk: Chunk) -> None:
        """What a sample grew by, before it is handed on."""
        self._used += chunk.completion_tokens
        if chunk.prompt_tokens:
            self._used += _PROMPT_TOKEN * (chunk.prompt_tokens - chunk.cached_tokens)
        self._state = _PARKED
        if chunk.finish_reason and self._left:
            self._end(1)
            if not self._left:
                self._admission.learn(self._used / self._n, self._n)

    def resume(self) -> None:
        """Its consumer wants the next chunk."""
        if self._state == _LENT:
            self._admission.live += self._left
        self._state = _READ

    def stalls(self) -> None:
        """Looks whether its consumer has come back since the last look; if not, its places are lent."""
        if self._state == _PARKED:
            self._state = _SEEN
        elif self._state == _SEEN:
            self._state = _LENT
            self._admission.live -= self._left

    def close(self) -> None:
        """Gives back what is left."""
        if self._left:
            self._end(self._left)
        self._admission.permits.discard(self)

    def _end(self, samples: int) -> None:
        self._left -= samples
        # What has cost nothing, for it failed or was not wanted any more, has been a turn all the same.
        flow, cost = self._flow, max(samples, self._used - self._paid)
        flow.owner.turns.settle(flow, samples, cost)
        flow.owner.tier.turns.settle(flow.owner, samples, cost)
        self._paid = self._used
        self._admission.release(samples, lent=self._state == _LENT)


class Admission:
    """Lets calls in.

    Args:
        limit: samples that may grow at once, but for the rest of the last call that was let in.
        max_waiting: samples that may wait before no more requests are taken, but from owners that have less than
            their part of them.
        clock: seconds.
    """

    def __init__(self, limit: int, max_waiting: int = 4096, clock: Clock = time.monotonic) -> None:
        self.limit = limit
        self.max_waiting = max_waiting
        self.live = 0
        """Samples that grow."""
        self.waiting = 0
        """Samples of the calls that wait."""
        self.rate = Rate(clock)
        """Of samples that end."""
        self.on_wait: Callable[[float], None] = lambda seconds: None
        """Told how long each call has waited that had to, when it is let in."""
        self.permits: set[Permit] = set()
        self._clock = clock
        self._tiers = (_Tier(), _Tier())
        self._guess = _FIRST_GUESS
        self._look: asyncio.TimerHandle | None = None

    def fit(self, slots: int | None) -> None:
        """To an engine that grows so many samples at once: with a few more it never waits for us."""
        if slots is not None:
            self.limit = slots + slots // 8

    @property
    def has_room(self) -> bool:
        """Whether a call may begin at once; then nobody waits."""
        return self.live < self.limit

    def is_full(self, owner: str) -> bool:
        """Whether new requests of the owner's have to be refused: as many samples wait as may, and its own part of
        them, which is the same for all whose requests wait, is used up.
        """
        if self.waiting < self.max_waiting:
            return False
        tier = self._tiers[0]
        known = tier.owners.get(owner)
        mine, others = known.waiting if known else 0, len(tier.turns.waiting.keys() - {known})
        return mine * (others + 1) >= self.max_waiting

    @property
    def waiting_calls(self) -> int:
        return sum(
            len(flow.calls) for tier in self._tiers for owner in tier.turns.waiting for flow in owner.turns.waiting
        )

    @property
    def retry_after_s(self) -> int:
        """Seconds until all that wait will have been let in, as fast as samples end now."""
        return self.rate.retry_after_s(self.waiting)

    def flow(self, owner: str, *, batch: bool = False) -> Flow:
        """A new request of the owner's."""
        tier = self._tiers[batch]
        known = tier.owners.get(owner)
        if known is None:
            known = tier.owners[owner] = _Owner(tier)
        return Flow(self, known)

    def grant(self, flow: Flow, n: int) -> Permit:
        """Lets a call in that does not wait."""
        flow.owner.tier.turns.begin(flow.owner)
        flow.owner.turns.begin(flow)
        return self._let_in(flow, n)

    async def wait(self, flow: Flow, n: int) -> Permit:
        """Stands in the queue until it is the call's turn."""
        call = _Call(n, self._clock())
        self._join(flow, call)
        try:
            return await call.granted
        except asyncio.CancelledError:
            if call in flow.calls:
                self._leave(flow, call)
            elif not call.granted.cancelled():
                call.granted.result().close()
            raise

    def learn(self, cost: float, samples: int) -> None:
        """What each of so many samples has cost."""
        self._guess += (max(1.0, cost) - self._guess) * min(1.0, samples / _MEMORY)

    def release(self, samples: int, *, lent: bool) -> None:
        """Takes places back, unless they were `lent` to others already, and lets in who comes next."""
        self.rate.note(samples)
        if not lent:
            self.live -= samples
        self._serve()

    def _let_in(self, flow: Flow, n: int) -> Permit:
        flow.live += n
        flow.owner.live += n
        permit = Permit(self, flow, n)
        self.permits.add(permit)
        self.live += n
        return permit

    def _serve(self) -> None:
        while self.waiting and self.live < self.limit:
            tier = next(tier for tier in self._tiers if tier.turns.waiting)
            flow = tier.turns.next(self._guess).turns.next(self._guess)
            call = next(iter(flow.calls))
            if call.granted.done():
                # Cancelled, and not told so yet.
                self._leave(flow, call)
                continue
            permit = self._let_in(flow, call.n)
            self._leave(flow, call)
            call.granted.set_result(permit)
            self.on_wait(self._clock() - call.since)

    def _join(self, flow: Flow, call: _Call) -> None:
        owner, tier = flow.owner, flow.owner.tier
        if not owner.turns.waiting:
            tier.turns.begin(owner)
            tier.turns.waiting[owner] = None
        if not flow.calls:
            owner.turns.begin(flow)
            owner.turns.waiting[flow] = None
        flow.calls[call] = None
        self.waiting += call.n
        owner.waiting += call.n
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(STALL_S, self._look_around)

    def _leave(self, flow: Flow, call: _Call) -> None:
        del flow.calls[call]
        self.waiting -= call.n
        flow.owner.waiting -= call.n
        if not flow.calls:
            del flow.owner.turns.waiting[flow]
        if not flow.owner.turns.waiting:
            del flow.owner.tier.turns.waiting[flow.owner]
        if not self.waiting and self._look:
            self._look.cancel()
            self._look = None

    def _look_around(self) -> None:
        self._look = asyncio.get_running_loop().call_later(STALL_S, self._look_around)
        for permit in self.permits:
            permit.stalls()
        self._serve()
