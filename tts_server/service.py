"""What a running server is made of; built by `app`, read by routes and `plan`."""

from collections.abc import Mapping
from dataclasses import dataclass

from prm import ProcessRewardModel
from tts_server.config import Settings
from tts_server.engines.base import ServedEngine


@dataclass(frozen=True, slots=True)
class Service:
    """The engine, the reward models and the settings that serve them."""

    engine: ServedEngine
    prms: Mapping[str, ProcessRewardModel]
    settings: Settings
    created: int
    """Unix seconds of the start: the `created` of every listed model."""

    @property
    def default_prm(self) -> str | None:
        return next(iter(self.prms), None)
