"""A streamed answer: its frames to typed events, and in the end to the same result that a whole answer has."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tts_server.client.errors import StreamCut, TTSError, UnexpectedAnswer, api_error
from tts_server.client.results import ChatResult
from tts_server.client.sse import Events

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Progress:
    """What the search, or a thinking model, says on its way; no part of the answer."""

    text: str
    index: int = 0


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
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece completes.

        Raises:
            APIError: the server failed; `partial` is what had come.
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

    def end(self) -> ChatResult:
        """The whole answer, when the last byte has come.

        Raises:
            StreamCut: the server had not finished.
        """
        if self.result is None:
            raise StreamCut("The stream stopped before its end; the answer is not whole.")
        return self.result

    def partial(self) -> ChatResult | None:
        """What has come so far; None if that is nothing."""
        return self._whole() if self._choices else None

    def _frame(self, data: str) -> Iterator[Event]:
        try:
            frame = json.loads(data)
            if frame.get("error"):
                raise api_error(frame, request_id=self._request_id)
            self._body |= {name: value for name, value in frame.items() if name != "choices" and value is not None}
            for choice in frame.get("choices") or ():
                yield from self._grow(choice)
        except TTSError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(f"The server's stream is not in OpenAI's format: {data[:200]!r}") from error

    def _grow(self, choice: dict[str, Any]) -> Iterator[Event]:
        index = int(choice["index"])
        kept = self._choices.setdefault(index, _empty(index))
        delta, message = choice.get("delta") or {}, kept["message"]
        kept["finish_reason"] = choice.get("finish_reason") or kept["finish_reason"]
        _append_logprobs(kept, choice.get("logprobs"))
        _append_calls(message, delta.get("tool_calls") or ())
        # Both names carry the same text.
        if thought := delta.get("reasoning") or delta.get("reasoning_content"):
            message["reasoning"] = message.get("reasoning", "") + thought
            yield Progress(thought, index)
        if refusal := delta.get("refusal"):
            message["refusal"] = (message["refusal"] or "") + refusal
        if (text := delta.get("content")) is not None:
            message["content"] = (message["content"] or "") + text
            if text:
                yield Delta(text, index)

    def _whole(self) -> ChatResult:
        choices = [self._choices[index] for index in sorted(self._choices)]
        return ChatResult.of({**self._body, "object": "chat.completion", "choices": choices}, self._request_id)


def _empty(index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _append_logprobs(kept: dict[str, Any], logprobs: dict[str, Any] | None) -> None:
    if logprobs and logprobs.get("content"):
        kept["logprobs"] = kept["logprobs"] or {"content": [], "refusal": None}
        kept["logprobs"]["content"].extend(logprobs["content"])


def _append_calls(message: dict[str, Any], pieces: Any) -> None:
    """Tool calls come in pieces: the name with the first, the arguments a bit at a time."""
    calls = message.setdefault("tool_calls", []) if pieces else []
    for piece in pieces:
        while len(calls) <= piece["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call, function = calls[piece["index"]], piece.get("function") or {}
        call["id"] = piece.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
