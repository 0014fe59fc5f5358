"""A streamed answer: its frames to typed events, and in the end to the same result that a whole answer has."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_server.client.errors import MAX_SHOWN, StreamCut, UnexpectedAnswer, api_error
from tts_server.client.reading import answer_of
from tts_server.client.results import ChatResult, Search
from tts_server.client.sse import Events

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Progress:
    """What the search, or a thinking model, says on its way; no part of the answer."""

    text: str
    index: int = 0
    search: Search | None = None
    """What the search has done so far, where the stream is `live`; then `text` may be empty."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer."""

    text: str
    index: int = 0
    """Of the choice."""


@dataclass(frozen=True, slots=True)
class Final:
    """The end: the answer as a whole, with its usage."""

    result: ChatResult


Event = Progress | Delta | Final


class Reader:
    """Reads the bytes of one streamed answer.

    Args:
        request_id: of the response.
    """

    def __init__(self, request_id: str | None = None) -> None:
        self.result: ChatResult | None = None
        """The whole answer, once its end has come."""
        self._request_id = request_id
        self._events = Events()
        self._body: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece completes.

        Raises:
            APIError: the server failed.
            UnexpectedAnswer: this is no stream of an answer.
        """
        for data in self._events.feed(piece):
            if self.result is not None:
                return
            if data == DONE:
                self.result = self._whole()
                yield Final(self.result)
            else:
                yield from self._frame(data)

    def end(self) -> None:
        """Raises StreamCut if the last byte came before the answer's end."""
        if self.result is None:
            raise StreamCut("The stream stopped before its end; the answer is not whole.")

    def partial(self) -> ChatResult | None:
        """What has come so far; None if that is nothing."""
        try:
            return self._whole() if self._choices else None
        except UnexpectedAnswer:
            # What fails may be that this is no answer.
            return None

    def _frame(self, data: str) -> Iterator[Event]:
        try:
            frame = json.loads(data)
            if frame.get("error"):
                raise api_error(frame, request_id=self._request_id)
            self._body |= {name: value for name, value in frame.items() if name != "choices" and value is not None}
            for told in frame.get("choices") or ():
                index = int(told["index"])
                choice = self._choices.setdefault(index, _Choice(index))
                ended = told.get("finish_reason") is not None
                search = None if ended or not frame.get("tts") else Search.model_validate(frame["tts"])
                yield from choice.grow(told, search)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"The server's stream is not in OpenAI's format: {data[:MAX_SHOWN]!r}") from error

    def _whole(self) -> ChatResult:
        choices = [self._choices[index].body for index in sorted(self._choices)]
        return answer_of(ChatResult, {**self._body, "object": "chat.completion", "choices": choices}, self._request_id)


class _Choice:
    """A choice, as its deltas add up."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._finish_reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: list[_ToolCall] = []

    def grow(self, told: Mapping[str, Any], search: Search | None) -> Iterator[Event]:
        """What a chunk says of this choice, and of the search."""
        delta = told.get("delta") or {}
        self._finish_reason = told.get("finish_reason") or self._finish_reason
        for name in ("content", "refusal"):
            if logprobs := (told.get("logprobs") or {}).get(name):
                self._logprobs.setdefault(name, []).extend(logprobs)
        self._add_calls(delta.get("tool_calls") or ())
        self._add("refusal", delta.get("refusal"))
        # Both names carry the same text.
        thought = self._add("reasoning", delta.get("reasoning") or delta.get("reasoning_content"))
        if thought or search:
            yield Progress(thought or "", self._index, search)
        if text := self._add("content", delta.get("content")):
            yield Delta(text, self._index)

    @property
    def body(self) -> dict[str, Any]:
        """The choice as an answer that is not streamed has it."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        calls = {"tool_calls": [call.body for call in self._calls]} if self._calls else {}
        return {
            "index": self._index,
            "message": {"role": "assistant", "content": None, "refusal": None, **texts, **calls},
            "logprobs": {"content": None, "refusal": None, **self._logprobs} if self._logprobs else None,
            "finish_reason": self._finish_reason,
        }

    def _add(self, name: str, told: Any) -> str | None:
        if told is None:
            return None
        self._texts.setdefault(name, []).append(text := _text(told))
        return text

    def _add_calls(self, pieces: Sequence[Mapping[str, Any]]) -> None:
        for piece in pieces:
            # A call's pieces come one after another, and one call after another.
            if piece["index"] == len(self._calls):
                self._calls.append(_ToolCall())
            self._calls[piece["index"]].grow(piece)


@dataclass(slots=True)
class _ToolCall:
    """A tool call; its name comes with the first piece, its arguments a bit at a time."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def grow(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        self.id = piece.get("id") or self.id
        self.name = function.get("name") or self.name
        self.arguments.append(_text(function.get("arguments") or ""))

    @property
    def body(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.id, "type": "function", "function": function}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
