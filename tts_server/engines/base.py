"""What the server asks of an engine beside generating: to start, to close, and to say how it is."""

from typing import Protocol

from strategies.base import Engine, Prompt, Sampling


class ServedEngine(Engine, Protocol):
    """An engine with a lifetime, and what the server has to know of its model."""

    @property
    def thinks(self) -> bool:
        """Whether `opening` may be anything at all."""
        ...

    @property
    def tool_format(self) -> str | None:
        """How its model writes calls of tools, a name of `call_readers.FORMATS`; None where that is not known."""
        ...

    @property
    def constrains(self) -> bool:
        """Whether it keeps samples to `Sampling.structured`, or passes it on to who does."""
        ...

    @property
    def calls_itself(self) -> bool:
        """Whether it takes `Sampling.calling`. Then every call that it tells is written in `tool_format`."""
        ...

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

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        """The thought's opening with which the rendered prompt ends and the sample therefore does not begin.

        Empty where the template opens none, and where a constraint lets no thought come.
        """
        ...
