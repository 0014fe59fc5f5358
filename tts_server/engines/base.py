"""What the server asks of an engine beside generating: to start, to close, and to say how it is."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from strategies.core.contracts import Engine, Prompt, Sampling, TokenIds
from tts_server.forms.call_formats import CallFormat


class Tokenizer(Protocol):
    """Plain text to token ids and back, as the model's own tokenizer does it: what spells a control token is one."""

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        """A text's token ids; `add_special_tokens` are those that the model's texts begin with."""
        ...

    async def decode(self, token_ids: TokenIds) -> str:
        """The text of token ids.

        Raises:
            InvalidRequest: the model has no such token.
        """
        ...

    async def spell(self, token_ids: TokenIds) -> list[str]:
        """Each token as the vocabulary writes it."""
        ...

    async def describe(self) -> Mapping[str, Any]:
        """What kind of tokenizer it is, its control tokens and the chat template, as `tokenizer_config.json` has it."""
        ...


@runtime_checkable
class Slotted(Protocol):
    """An engine that may know how many samples it grows at once; more of them wait inside of it, first come."""

    @property
    def slots(self) -> int | None:
        """None where it does not know, and before its start."""
        ...


@runtime_checkable
class Restarted(Protocol):
    """An engine that is started again when it dies, until it is given up."""

    @property
    def restarts(self) -> int:
        """How often it was."""
        ...

    @property
    def given_up(self) -> bool:
        """Whether only a new process can help."""
        ...


@runtime_checkable
class ReadsCalls(Protocol):
    """An engine that may know how its model writes calls of tools, where that is not known here."""

    @property
    def call_format(self) -> CallFormat | None:
        """None where it was told no parser of its own."""
        ...


class ServedEngine(Engine, Protocol):
    """An engine with a lifetime, and what the server has to know of its model."""

    @property
    def thinks(self) -> bool:
        """Whether `opening` may be anything at all."""
        ...

    @property
    def tool_format(self) -> str | None:
        """How its model writes calls of tools, a name of `call_formats.FORMATS`; None where that is not known."""
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
    def tokenizer(self) -> Tokenizer:
        """Its model's tokenizer.

        Raises:
            Refused: the engine does not take token ids.
            EngineUnavailable: it is not started.
        """
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
