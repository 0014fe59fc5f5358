"""How models write calls of tools: the formats that are read here, and what one of somebody else's has to be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tts_server.call_readers import Hermes, Llama, Reader

Name = Literal["hermes", "llama3_json"]
Tool = Mapping[str, Any]
"""As OpenAI writes it."""


class CallFormat(Protocol):
    """How a model writes calls of tools."""

    @property
    def special_tokens(self) -> bool:
        """Whether calls are told by control tokens, which a sample's text then has to show."""
        ...

    def reader(self, tools: Sequence[Tool]) -> Reader:
        """Reads one answer of a model that may call these tools."""
        ...

    def is_broken(self, content: str) -> bool:
        """Whether content is a call that could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """A format that is read here.

    Args:
        read: makes a reader of the calls of tools with these names.
        broken: whether content is a call that could not be read.
    """

    read: Callable[[Sequence[str]], Reader]
    broken: Callable[[str], bool]
    special_tokens: bool = False

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return self.read(names_of(tools))

    def is_broken(self, content: str) -> bool:
        return self.broken(content)


def names_of(tools: Sequence[Tool]) -> list[str]:
    """What the tools are called."""
    return [tool["function"]["name"] for tool in tools]


HERMES = OwnFormat(Hermes, lambda content: Hermes.OPEN in content)
LLAMA = OwnFormat(Llama, lambda content: content.lstrip().startswith(("{", Llama.TAG)))
FORMATS: Mapping[str, OwnFormat] = {"hermes": HERMES, "llama3_json": LLAMA}
"""The formats that are read here, by vLLM's names for them."""


def format_of(template: str) -> Name | None:
    """The format in which a chat template shows calls to its model; None for one that is not read here."""
    if "<function=" in template or "<arg_key>" in template:
        return None  # they too stand in <tool_call>, and are no JSON
    if "<tool_call>" in template:
        return "hermes"
    return "llama3_json" if Llama.TAG in template else None
