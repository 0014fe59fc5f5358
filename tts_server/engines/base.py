"""What the server asks of an engine beside generating: to start, to close, and to say how it is."""

from typing import Protocol

from strategies.base import Engine


class ServedEngine(Engine, Protocol):
    """An engine with a lifetime."""

    @property
    def healthy(self) -> bool:
        """Whether a request that comes now can be answered."""
        ...

    async def start(self) -> None:
        """Loads the model or reaches the upstream; raises one sentence that says what to do where it cannot."""
        ...

    async def close(self) -> None:
        """Aborts what still runs and frees everything."""
        ...
