"""How models write calls of tools: the formats that are read here, and what one of somebody else's has to be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tts_server.forms.call_readers import Hermes, Llama, Reader
from tts_server.forms.json_schema import Schema, arguments_schema, calls_schema

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

    def call_or_answer(
        self, parameters: Mapping[str, Schema], answer: Schema, *, parallel: bool
    ) -> Mapping[str, Any] | None:
        """The constraint that allows calls of tools and an answer by a schema, and nothing else.

        Returns:
            a `response_format` of type `json_schema` or `structural_tag`; None where the format has no grammar here.
        """
        ...


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """A format that is read here.

    Args:
        read: makes a reader of the calls of tools with these names.
        broken: whether content is a call that could not be read.
        either: makes the constraint of `call_or_answer`.
    """

    read: Callable[[Sequence[str]], Reader]
    broken: Callable[[str], bool]
    either: Callable[[Mapping[str, Schema], Schema, bool], Mapping[str, Any]]
    special_tokens: bool = False

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return self.read(names_of(tools))

    def is_broken(self, content: str) -> bool:
        return self.broken(content)

    def call_or_answer(
        self, parameters: Mapping[str, Schema], answer: Schema, *, parallel: bool
    ) -> Mapping[str, Any] | None:
        return self.either(parameters, answer, parallel)


def names_of(tools: Sequence[Tool]) -> list[str]:
    """What the tools are called."""
    return [tool["function"]["name"] for tool in tools]


def _tagged(parameters: Mapping[str, Schema], answer: Schema, parallel: bool) -> Mapping[str, Any]:
    """Calls in the tags of Hermes, or the answer: a structural tag of XGrammar."""
    calls = [
        {
            "type": "tag",
            "begin": f'{Hermes.OPEN}\n{{"name": "{name}", "arguments": ',
            "content": {"type": "json_schema", "json_schema": arguments_schema(schema)},
            "end": f"}}\n{Hermes.CLOSE}",
        }
        for name, schema in parameters.items()
    ]
    said = {"type": "json_schema", "json_schema": answer.plain()}
    called = {
        "type": "tags_with_separator",
        "tags": calls,
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": not parallel,
    }
    return {"type": "structural_tag", "format": {"type": "or", "elements": [said, called]}}


def _bare(parameters: Mapping[str, Schema], answer: Schema, parallel: bool) -> Mapping[str, Any]:
    """One call as a bare JSON object, or the answer: one schema."""
    schema = calls_schema(parameters, "parameters", answer)
    return {"type": "json_schema", "json_schema": {"name": "call_or_answer", "schema": schema}}


HERMES = OwnFormat(Hermes, lambda content: Hermes.OPEN in content, _tagged)
LLAMA = OwnFormat(Llama, lambda content: content.lstrip().startswith(("{", Llama.TAG)), _bare)
FORMATS: Mapping[str, OwnFormat] = {"hermes": HERMES, "llama3_json": LLAMA}
"""The formats that are read here, by vLLM's names for them."""


def format_of(template: str) -> Name | None:
    """The format in which a chat template shows calls to its model; None for one that is not read here."""
    if "<function=" in template or "<arg_key>" in template:
        return None  # they too stand in <tool_call>, and are no JSON
    if "<tool_call>" in template:
        return "hermes"
    return "llama3_json" if Llama.TAG in template else None
