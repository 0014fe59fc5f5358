"""Calls of tools in an upstream's deltas: which delta belongs to which call, and all of them in one text.

OpenAI numbers calls by `index`. Other servers leave it out (Gemini), give every call the index 0 (Ollama), tell one
call under several (LocalAI), repeat names, send arguments as an object, or let the calls' pieces take turns.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_server.engines.openai.values import text_in
from tts_server.forms.call_readers import Hermes
from tts_server.forms.json_schema import ObjectEnd

NOTHING = ("", "null")
"""Arguments of a call without any."""


class Calls:
    """One choice's calls, written one after the other as the format `hermes` has them."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._place = 0
        """The call that is being written; those behind it wait."""

    @property
    def open(self) -> bool:
        """Whether a call is not closed yet."""
        return self._place < len(self._calls)

    def grow(self, deltas: Sequence[Mapping[str, Any]]) -> str:
        """What deltas add to the text.

        Raises:
            KeyError: a call has arguments and no name.
        """
        for delta in deltas:
            self._take(delta)
        return self._write(lambda call: call.whole and call is not self._calls[-1])

    def settle(self) -> str:
        """Closes the calls that are whole, so that something else can be said behind them."""
        return self._write(lambda call: call.whole)

    def end(self) -> str:
        """Closes all calls."""
        return self._write(lambda call: True)

    def _take(self, delta: Mapping[str, Any]) -> None:
        function: Mapping[str, Any] = delta.get("function") or {}
        index, id_ = delta.get("index"), text_in(delta.get("id"))
        name, arguments = text_in(function.get("name")), _arguments_in(function.get("arguments"))
        call = self._find(index, id_, name, arguments)
        if call is None:
            if not (id_ or name or arguments):
                return  # what some servers say of a call behind it
            call = _Call(index)
            self._calls.append(call)
        call.id = call.id or id_
        call.grow(name, arguments)

    def _find(self, index: Any, id_: str, name: str, arguments: str) -> "_Call | None":
        """The call that goes on; None where another one begins."""
        if id_ and (same := next((call for call in self._calls if call.id == id_), None)):
            again = not (name and arguments) or arguments == same.arguments
            return same if again or not same.whole else None
        place = [call for call in self._calls if index in (None, call.index)]
        if not place or (id_ and place[-1].id):
            return None
        last = place[-1]
        if name and last.whole and arguments:
            return None
        # A name can come in pieces, but only before the arguments, and from servers that number their calls.
        renamed = name not in ("", last.name) and bool(last.name)
        return None if renamed and (last.arguments or index is None) else last

    def _write(self, closes: Callable[["_Call"], bool]) -> str:
        text = ""
        while self.open:
            call = self._calls[self._place]
            closed = closes(call)
            text += call.write(closed=closed)
            if not closed:
                break
            self._place += 1
        return text


@dataclass(eq=False, slots=True)
class _Call:
    index: Any
    id: str = ""
    name: str = ""
    arguments: str = ""
    """So far."""
    _end: ObjectEnd = field(default_factory=ObjectEnd)
    _written: int | None = None
    """Characters of the arguments that stand in the text; None where the call does not yet."""

    @property
    def whole(self) -> bool:
        """Whether its arguments are."""
        return self._end.ended

    def grow(self, name: str, arguments: str) -> None:
        if name != self.name and not self.arguments:
            self.name += name
        if self.whole:
            return  # told twice
        told = arguments if self.arguments else arguments.lstrip()
        self.arguments += told[: self._end.take(told)]

    def write(self, *, closed: bool) -> str:
        """What is new of it as text."""
        if closed and self.arguments.strip() in NOTHING:
            if not self.name:
                return ""
            self.arguments = "{}"
        text = ""
        if self._written is None:
            if not (closed or self.arguments.startswith("{")):
                return ""
            if not self.name:
                raise KeyError("name")
            text, self._written = f'{Hermes.OPEN}{{"name": {json.dumps(self.name)}, "arguments": ', 0
        text += self.arguments[self._written :]
        self._written = len(self.arguments)
        return text + ("}" + Hermes.CLOSE if closed else "")


def _arguments_in(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else text_in(value)
