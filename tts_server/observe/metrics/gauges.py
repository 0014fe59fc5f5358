"""What is read from its owner whenever somebody looks: nothing of this is counted here."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prometheus_client.metrics_core import Metric

from tts_server import __version__
from tts_server.engines.base import Restarted
from tts_server.observe.metrics import families as f
from tts_server.observe.metrics.counts import NO_SEARCH, Metrics


class Engine(Protocol):
    """The part of an engine that is looked at."""

    @property
    def model(self) -> str: ...

    @property
    def healthy(self) -> bool: ...


class Queue(Protocol):
    """Where calls wait for their turn at the engine."""

    @property
    def waiting(self) -> int: ...

    @property
    def limit(self) -> int: ...


class UpstreamCounts(Protocol):
    """What an upstream has counted since the start."""

    @property
    def origin(self) -> str: ...

    @property
    def healthy(self) -> bool: ...

    @property
    def retried(self) -> int: ...

    @property
    def failed(self) -> Mapping[str, int]:
        """By kind: `connect`, `timeout`, `broken`, or an HTTP status."""
        ...


@runtime_checkable
class Replaceable(Protocol):
    """An upstream for which others step in."""

    @property
    def failovers(self) -> int:
        """What they took over from it."""
        ...


class Scrapes(Protocol):
    """Who asks upstreams for their own metrics."""

    @property
    def up(self) -> Mapping[str, bool]:
        """By origin, whether it has told them."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """What a server is made of, as far as its metrics show it."""

    engine: Engine
    queue: Queue
    prms: Sequence[str]
    upstreams: Callable[[], Sequence[UpstreamCounts]]
    traces_dropped: Callable[[], int]
    scrapes: Scrapes


class Now:
    """A collector of how things are.

    Args:
        metrics: whose requests under way are counted.
        watched: what else is looked at.
    """

    def __init__(self, metrics: Metrics, watched: Watched) -> None:
        self._metrics = metrics
        self._watched = watched
        metrics.registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """No names: they are known to be free, and to look at everything at the start is too early."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._owners()
        yield f.QUEUE.read([((), self._watched.queue.waiting)])
        yield f.SAMPLE_LIMIT.read([((), self._watched.queue.limit)])
        yield from self._upstreams()
        engine = self._watched.engine
        yield f.ENGINE_UP.read([((), engine.healthy)])
        yield f.RESTARTS.read([((), engine.restarts)] if isinstance(engine, Restarted) else ())
        yield f.TRACES_DROPPED.read([((), self._watched.traces_dropped())])
        yield f.BUILD.read([((__version__, engine.model, ",".join(self._watched.prms)), 1)])

    def _requests(self) -> Iterator[Metric]:
        running, live = Counter[str](), Counter[str]()
        for state in list(self._metrics.running):
            plans = state.plans
            running[plans[0].strategy if plans else NO_SEARCH] += 1
            for plan in plans:
                live[plan.strategy] += plan.account.live
        yield f.RUNNING.read(((name,), count) for name, count in sorted(running.items()))
        yield f.LIVE.read(((name,), count) for name, count in sorted(live.items()))

    def _owners(self) -> Iterator[Metric]:
        requests, tokens = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for owner, usage in self._metrics.usage_of_owners.named():
            requests.update({(owner, status): count for status, count in usage.statuses.items()})
            tokens[owner, "prompt"] += usage.cost.prompt_tokens
            tokens[owner, "generated"] += usage.cost.completion_tokens
            tokens[owner, "prm"] += usage.cost.prm_tokens
        yield f.OWNER_REQUESTS.read(sorted(requests.items()))
        yield f.OWNER_TOKENS.read(sorted(tokens.items()))

    def _upstreams(self) -> Iterator[Metric]:
        up, failed, retried, failovers = dict[str, bool](), Counter[tuple[str, str]](), Counter[str](), Counter[str]()
        # The policy and a reward model may be at one place.
        for each in self._watched.upstreams():
            up[each.origin] = up.get(each.origin, True) and each.healthy
            failed.update({(each.origin, kind): count for kind, count in each.failed.items()})
            retried[each.origin] += each.retried
            if isinstance(each, Replaceable):
                failovers[each.origin] += each.failovers
        yield f.UPSTREAM_UP.read(((origin,), well) for origin, well in up.items())
        yield f.UPSTREAM_ERRORS.read(sorted(failed.items()))
        yield f.UPSTREAM_RETRIES.read(((origin,), count) for origin, count in retried.items())
        yield f.UPSTREAM_FAILOVERS.read(((origin,), count) for origin, count in failovers.items())
        yield f.UPSTREAM_SCRAPED.read(((origin,), said) for origin, said in self._watched.scrapes.up.items())
