"""What a running server is made of; built by `app`, read by routes and `plan`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from prm import ProcessRewardModel
from strategies.allocation.policy_table import InUse
from strategies.core.latency import Latencies
from tts_server.config import Settings
from tts_server.engines.base import ServedEngine


@runtime_checkable
class Lifetime(Protocol):
    """A reward model that has to be started before it serves."""

    async def start(self) -> None:
        """Raises one sentence that says what to do where it cannot."""
        ...

    async def close(self) -> None:
        """May be called of one that did not start."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """The engine, the reward models and the settings that serve them."""

    engine: ServedEngine
    prms: Mapping[str, ProcessRewardModel]
    settings: Settings
    created: int
    """Unix seconds of the start: the `created` of every listed model."""
    latencies: Latencies = field(default_factory=Latencies)
    """What generating and scoring take at the moment."""
    policy: InUse | None = None
    """How compute is spent best on the model, where it was measured."""

    @property
    def owned(self) -> list[Lifetime]:
        """The reward models that have to be started, after the engine, on which they may run."""
        return [prm for prm in self.prms.values() if isinstance(prm, Lifetime)]

    @property
    def default_prm(self) -> str | None:
        return next(iter(self.prms), None)
