"""All that `/metrics` tells: what is counted, how things are, and what others tell."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from prm import FamilyPRM, ProcessRewardModel
from prm.backend.batching import OnBatch
from prm.families.contract import Backend
from tts_server.admission.queue import Admission
from tts_server.engines.base import ServedEngine
from tts_server.observe.metrics.counts import Metrics
from tts_server.observe.metrics.foreign import PassedOn, Scraped, merged, of_process
from tts_server.observe.metrics.gauges import Now, UpstreamCounts, Watched
from tts_server.observe.traces.store import Traces
from tts_server.prm_serving.memory import Remembered


class Upstream(UpstreamCounts, Scraped, Protocol):
    """Another server, on which this one depends."""


@runtime_checkable
class HasUpstreams(Protocol):
    """An engine or a reward model's backend that asks other servers."""

    @property
    def upstreams(self) -> Sequence[Upstream]: ...


@runtime_checkable
class Batching(Protocol):
    """A reward model's backend that reads in batches."""

    on_batch: OnBatch | None


def _innermost(backend: Backend) -> Backend:
    return backend.backend if isinstance(backend, Remembered) else backend


class Shown:
    """The metrics of one server.

    Args:
        metrics: what is counted.
        engine: what else is looked at, as the rest.
        prms: reward models; batches of those in this process are counted from here on.
        admission: where calls wait, which is counted from here on as well.
        traces: their store.
    """

    def __init__(
        self,
        metrics: Metrics,
        engine: ServedEngine,
        prms: Sequence[ProcessRewardModel],
        admission: Admission,
        traces: Traces,
    ) -> None:
        admission.on_wait = metrics.queue_wait.observe
        backends = {prm.name: _innermost(prm.backend) for prm in prms if isinstance(prm, FamilyPRM)}
        for name, backend in backends.items():
            if isinstance(backend, Batching):
                backend.on_batch = metrics.prm_batches(name)
        owners = [owner for owner in (engine, *backends.values()) if isinstance(owner, HasUpstreams)]

        def upstreams() -> list[Upstream]:
            return [upstream for owner in owners for upstream in owner.upstreams]

        self._metrics = metrics
        self._passed_on = PassedOn(upstreams)
        names = [prm.name for prm in prms]
        Now(
            metrics,
            Watched(engine, admission, names, upstreams, lambda: traces.dropped, self._passed_on),
        )

    async def text(self) -> bytes:
        """In Prometheus' text format."""
        told = await self._passed_on.ask()
        return merged(self._metrics.text() + of_process(), told)
