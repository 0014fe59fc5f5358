"""The form that a request fixes for its answer: JSON, calls of tools, a text by a grammar. Reads samples in it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from strategies.answers.think_tags import split
from strategies.core.contracts import Chunk, Engine, Prompt, Reading, Sampling
from strategies.core.engine_wrapper import EngineWrapper
from tts_server.forms.call_formats import HERMES, CallFormat
from tts_server.forms.call_readers import Call, Piece, Plain, Reader
from tts_server.forms.json_schema import Schema, canonical, parse
from tts_server.forms.tools import Tools, arguments_of


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer has to look like.

    Args:
        asked: what holds the answer, as OpenAI's `response_format`, or as vLLM's `structured_outputs` under the name of
            its kind: `{"type": "regex", "regex": …}`.
        schema: of a JSON answer.
        tools: that it may or has to call.
        parameters: the schema of each tool's arguments.
        calls: how the model writes calls.
        constrained: whether the engine keeps calls to a constraint; else an upstream parses them itself.
    """

    asked: Mapping[str, Any] | None = None
    schema: Schema | None = None
    tools: Tools | None = None
    parameters: Mapping[str, Schema] = field(default_factory=dict)
    calls: CallFormat = HERMES
    constrained: bool = True

    @property
    def structured(self) -> Mapping[str, Any] | None:
        """What holds a sample to the form: `Sampling.structured`."""
        if self.tools and self.constrained:
            if schema := self.tools.constraint(self.parameters):
                return {"type": "json_schema", "json_schema": {"name": "tool_calls", "schema": schema}}
            if self.schema is None:
                return None
            return self.calls.call_or_answer(self.parameters, self.schema, parallel=self.tools.parallel)
        if self.asked is None or self.schema is None or self.asked["type"] != "json_schema":
            return self.asked
        return {**self.asked, "json_schema": {**self.asked["json_schema"], "schema": self.schema.plain()}}

    def reader(self) -> Reader:
        """Reads one answer as it grows."""
        if self.tools is None:
            return Plain()
        reader = self.tools.reader(self.calls, constrained=self.constrained)
        return reader if self.tools.parallel else _First(reader)

    def read(self, text: str) -> Reading | None:
        """What a whole sample says in this form; None where it says it in words, as it may."""
        answer = split(text).answer
        if self.tools:
            return self._calls(answer, self.tools)
        if self.schema:
            return self._json(answer, self.schema)
        return self._text(answer.strip())

    def _text(self, answer: str) -> Reading | None:
        """A choice, or what else a constraint lets come as a whole; free text may stand around structural tags."""
        match self.asked:
            case {"type": "choice", "choice": choices} if answer not in choices:
                return Reading(None, "it is none of the choices")
            case {"type": "choice" | "regex" | "grammar"}:
                return Reading(answer)
        return None

    def _json(self, answer: str, schema: Schema) -> Reading:
        try:
            value = parse(answer)
        except ValueError as error:
            return Reading(None, f"it is not JSON ({error})")
        fault = schema.fault_of(value)
        return Reading(None, f"it does not follow the schema ({fault})") if fault else Reading(canonical(value))

    def _calls(self, answer: str, tools: Tools) -> Reading | None:
        calls, content = gather(self.reader(), answer)
        if not calls and tools.choice == "auto" and self.schema:
            return self._json(content, self.schema)
        if not calls and (tools.choice != "auto" or self.calls.is_broken(content)):
            return Reading(None, "it calls no tool")
        if not calls:
            return None
        made = []
        for call in calls:
            arguments = arguments_of(call)
            if arguments is None:
                return Reading(None, f"the arguments of {call.name} are not a JSON object")
            if fault := self.parameters[call.name].fault_of(arguments):
                return Reading(None, f"the arguments of {call.name} do not follow its schema ({fault})")
            made.append(canonical({"name": call.name, "arguments": arguments}))
        # Calls that are made at once have no order.
        return Reading(f"[{','.join(sorted(made))}]")


class _First:
    """Reads the first call and drops the others, where only one is allowed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def push(self, text: str) -> "filter[Piece]":
        return filter(_is_first, self._reader.push(text))

    def end(self) -> "filter[Piece]":
        return filter(_is_first, self._reader.end())


def _is_first(piece: Piece) -> bool:
    return not piece.call


def gather(reader: Reader, text: str) -> tuple[list[Call], str]:
    """The calls in a whole text, and the rest of it."""
    calls: list[Call] = []
    content = ""
    for piece in (*reader.push(text), *reader.end()):
        content += piece.content
        if piece.name is not None:
            calls.append(Call(piece.name, ""))
        if piece.call is not None:
            calls[-1] = Call(calls[-1].name, calls[-1].arguments + piece.arguments)
    return calls, content


class FormedEngine(EngineWrapper):
    """An engine whose samples are read in a request's form when they end."""

    def __init__(self, engine: Engine, form: Form) -> None:
        super().__init__(engine)
        self._form = form

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        said: dict[int, list[str]] = {}
        refused: set[int] = set()
        async with aclosing(self._engine.generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                texts = said.setdefault(chunk.index, [])
                texts.append(chunk.text)
                if chunk.refusal:
                    refused.add(chunk.index)
                # A refusal is in no form, and no fault of one.
                if chunk.finish_reason in (None, "error") or chunk.index in refused:
                    yield chunk
                else:
                    yield replace(chunk, reading=self._form.read("".join(texts)))
