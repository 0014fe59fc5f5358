"""Calls of tools in what a model says: found as the text grows, in the format of the model's family.

One reader serves streams and whole texts, so both tell the same calls. What is no call after all is content.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from strategies.answers.think_tags import overlap
from tts_server.forms.json_schema import ObjectEnd

_LONGEST_HEAD = 256
"""Characters after which an object that calls no tool so far is content."""


class Piece(NamedTuple):
    """What a text grew by: content, or a part of the call number `call`, which its `name` begins."""

    content: str = ""
    call: int | None = None
    name: str | None = None
    arguments: str = ""


class Reader(Protocol):
    """Takes a text in pieces."""

    def push(self, text: str) -> Iterator[Piece]:
        """What is certain now."""
        ...

    def end(self) -> Iterator[Piece]:
        """What was held back."""
        ...


class Plain:
    """Reads a text without calls."""

    def push(self, text: str) -> Iterator[Piece]:
        if text:
            yield Piece(text)

    def end(self) -> Iterator[Piece]:
        return iter(())


class Named:
    """Reads a text that is the arguments of one tool, as a constraint made it."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def push(self, text: str) -> Iterator[Piece]:
        if text:
            yield Piece(call=0, name=self._name, arguments=text)
            self._name = None

    def end(self) -> Iterator[Piece]:
        return iter(())


class Listed:
    """Reads a text that is a JSON list of calls, as a constraint made it; a call is told once it is whole."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._held = ""
        self._calls = 0

    def push(self, text: str) -> Iterator[Piece]:
        self._held += text
        while True:
            rest = self._held.lstrip(" \t\r\n,[" if self._calls == 0 else " \t\r\n,")
            if not rest.startswith("{"):
                return
            try:
                value, end = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                return
            call = _call_in(value, self._names)
            if call is None:
                return
            self._held = rest[end:]
            yield Piece(call=self._calls, name=call.name, arguments=call.arguments)
            self._calls += 1

    def end(self) -> Iterator[Piece]:
        # Only the list's end is no content.
        if self._held.strip(" \t\r\n,[]"):
            yield Piece(self._held)
        self._held = ""


class Call(NamedTuple):
    """A whole call."""

    name: str
    arguments: str
    """As the model wrote them: JSON, if it did well."""


def _call_in(value: Any, names: Sequence[str]) -> Call | None:
    """The call that a JSON object describes, if it is one of a known tool."""
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, dict):
        return Call(value["name"], json.dumps(arguments, ensure_ascii=False))
    return Call(value["name"], arguments) if isinstance(arguments, str) else None


class Hermes:
    """Reads `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Qwen and Hermes models write it.

    Arguments are told as they grow, once it is certain which tool is called. White space around a call is no content.
    An answer that begins with such an object and leaves the tags out, as Qwen's smaller models do, calls as well.
    """

    OPEN, CLOSE = "<tool_call>", "</tool_call>"
    _HEAD = re.compile(
        r'[\s,\[]*\{\s*"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)',
    )

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._held = ""
        self._calls = 0
        self._read: Callable[[], Iterator[Piece]] = self._content
        self._json = ObjectEnd()
        self._said = False
        """Whether there was any content or call."""
        self._bare = False
        """Whether the call stands without tags."""

    def push(self, text: str) -> Iterator[Piece]:
        self._held += text
        before = None
        # Each state takes what it can; the text is used up when one takes nothing and hands over to none.
        while before != (len(self._held), self._read):
            before = (len(self._held), self._read)
            yield from self._read()

    def end(self) -> Iterator[Piece]:
        if self._read == self._header:
            yield from self._block(self._held, "")
        elif self._read == self._content and not (self._calls and not self._held.strip()) and self._held:
            yield Piece(self._held)
        self._held = ""

    def _content(self) -> Iterator[Piece]:
        if not self._said and self._held.lstrip().startswith("{"):
            self._said, self._bare, self._read = True, True, self._header
            return
        said, opened, rest = self._held.partition(self.OPEN)
        if opened:
            self._held, self._said, self._bare, self._read = rest, True, False, self._header
            if said.strip():
                yield Piece(said.rstrip())
            return
        sure = len(said) - overlap(said, self.OPEN)
        sure = len(said[:sure].rstrip())
        if sure:
            self._held, self._said = said[sure:], True
            yield Piece(said[:sure])

    def _header(self) -> Iterator[Piece]:
        if (found := self._HEAD.match(self._held)) and found["name"] in self._names:
            self._held, self._read, self._json = self._held[found.end() :], self._arguments, ObjectEnd()
            yield Piece(call=self._calls, name=found["name"])
            self._calls += 1
            return
        if self._bare:
            if found or len(self._held) > _LONGEST_HEAD:
                self._bare, self._read = False, self._content
            return
        block, closed, rest = self._held.partition(self.CLOSE)
        if closed:
            self._held, self._read = rest, self._content
            yield from self._block(block, self.CLOSE)

    def _arguments(self) -> Iterator[Piece]:
        taken = self._json.take(self._held)
        if taken:
            yield Piece(call=self._calls - 1, arguments=self._held[:taken])
        self._held = self._held[taken:]
        if self._json.ended:
            self._read = self._tail

    def _tail(self) -> Iterator[Piece]:
        """Behind a call: the end of the block, or of a list the next call."""
        rest = self._held.lstrip(" \t\r\n,}")
        if rest.startswith("{"):
            self._held, self._read = rest, self._header
            return
        _, closed, after = self._held.partition(self.CLOSE)
        if closed:
            self._held, self._read = after, self._content
        elif self._bare and rest and not self.CLOSE.startswith(rest):
            self._bare, self._held, self._read = False, self._held[self._held.find("}") + 1 :], self._content
        yield from ()

    def _block(self, block: str, close: str) -> Iterator[Piece]:
        """A block that is not written in the usual order: calls of known tools, or content after all."""
        calls = calls_in(block, self._names)
        if not calls:
            yield Piece(block if self._bare else self.OPEN + block + close)
        for call in calls:
            yield Piece(call=self._calls, name=call.name, arguments=call.arguments)
            self._calls += 1


class Llama:
    """Reads `{"name": …, "parameters": {…}}`, the whole answer of Llama 3 models that call; several stand behind `;`.

    An answer that does not begin with a brace is content, told as it grows.
    """

    TAG = "<|python_tag|>"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._held = ""
        self._said = False

    def push(self, text: str) -> Iterator[Piece]:
        self._held += text
        begins = self._held.lstrip().removeprefix(self.TAG).lstrip()[:1]
        if self._said or begins not in ("", "{", "<"):
            self._said, said, self._held = True, self._held, ""
            yield Piece(said)

    def end(self) -> Iterator[Piece]:
        calls = calls_in(self._held.strip().removeprefix(self.TAG), self._names)
        if not calls and self._held:
            yield Piece(self._held)
        for number, call in enumerate(calls):
            yield Piece(call=number, name=call.name, arguments=call.arguments)


def calls_in(text: str, names: Sequence[str]) -> list[Call]:
    """The calls that a text is made of: JSON objects in a row, or one list of them; none if anything else is in it."""
    calls: list[Call] = []
    rest = text.strip()
    while rest:
        try:
            value, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            return []
        found = [_call_in(v, names) for v in (value if isinstance(value, list) else [value])]
        calls += [call for call in found if call]
        if None in found:
            return []
        rest = rest[end:].lstrip(" \t\r\n;,")
    return calls
