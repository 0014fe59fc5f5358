"""The items that a response is made of, as they grow: each change is one of OpenAI's events."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from tts_server.answer.chat import token_logprob
from tts_server.answer.sample_text import Said
from tts_server.schema.ids import unique
from tts_server.schema.response_items import packed

Json = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]
AnyItem = TypeVar("AnyItem", bound="_Item")


class _Item(ABC):
    """One item. Where it stands in the output is part of each of its events."""

    prefix: str

    def __init__(self, index: int) -> None:
        self.status: Status = "in_progress"
        self._id = f"{self.prefix}_{unique()}"
        self._index = index

    @abstractmethod
    def body(self) -> Json:
        """The item as it is now."""

    def open(self) -> Iterator[Json]:
        yield self._item("added")

    def close(self, status: Status) -> Iterator[Json]:
        self.status = status
        yield self._item("done")

    def _item(self, change: Literal["added", "done"]) -> Json:
        return {"type": f"response.output_item.{change}", "output_index": self._index, "item": self.body()}

    def _event(self, kind: str, **fields: Any) -> Json:
        return {"type": f"response.{kind}", "item_id": self._id, "output_index": self._index, **fields}


class Reasoning(_Item):
    """What was searched, as its summary, and what the model thought, as its content."""

    prefix = "rs"

    def __init__(self, index: int, *, encrypted: bool) -> None:
        super().__init__(index)
        self._encrypted = encrypted
        self._summary: list[str] = []
        self._thought: list[str] = []

    def body(self) -> Json:
        summary, thought = self._parts()
        whole = {"id": self._id, "type": "reasoning", "status": self.status, "summary": summary, "content": thought}
        return whole | ({"encrypted_content": packed("".join(self._thought))} if self._encrypted else {})

    def progress(self, line: str) -> Iterator[Json]:
        if not self._summary:
            yield self._event("reasoning_summary_part.added", summary_index=0, part=_part("summary_text", ""))
        self._summary.append(line)
        yield self._event("reasoning_summary_text.delta", summary_index=0, delta=line)

    def think(self, text: str) -> Iterator[Json]:
        if not self._thought:
            yield self._event("content_part.added", content_index=0, part=_part("reasoning_text", ""))
        self._thought.append(text)
        yield self._event("reasoning_text.delta", content_index=0, delta=text)

    def close(self, status: Status) -> Iterator[Json]:
        summary, thought = self._parts()
        for part in summary:
            yield self._event("reasoning_summary_text.done", summary_index=0, text=part["text"])
            yield self._event("reasoning_summary_part.done", summary_index=0, part=part)
        for part in thought:
            yield self._event("reasoning_text.done", content_index=0, text=part["text"])
            yield self._event("content_part.done", content_index=0, part=part)
        yield from super().close(status)

    def _parts(self) -> tuple[list[Json], list[Json]]:
        summary = [_part("summary_text", "".join(self._summary))] if self._summary else []
        return summary, [_part("reasoning_text", "".join(self._thought))] if self._thought else []


class Message(_Item):
    """What the model says."""

    prefix = "msg"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._content: list[Json] = []
        """The parts that are done."""
        self._refuses: bool | None = None
        """Whether the part that grows is a refusal; None where none grows."""
        self._text: list[str] = []
        self._logprobs: list[Json] = []

    def body(self) -> Json:
        status, content = self.status, list(self._content)
        return {"id": self._id, "type": "message", "status": status, "role": "assistant", "content": content}

    def say(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        yield from self._turn_to(refusal=False)
        self._text.append(text)
        self._logprobs += logprobs
        yield self._part_event("output_text.delta", delta=text, logprobs=logprobs)

    def refuse(self, text: str) -> Iterator[Json]:
        yield from self._turn_to(refusal=True)
        self._text.append(text)
        yield self._part_event("refusal.delta", delta=text)

    def close(self, status: Status) -> Iterator[Json]:
        if not self._content and self._refuses is None:
            yield from self._turn_to(refusal=False)
        yield from self._end_part()
        yield from super().close(status)

    def _turn_to(self, *, refusal: bool) -> Iterator[Json]:
        """Ends the part that grew before another one."""
        if self._refuses is refusal:
            return
        yield from self._end_part()
        self._refuses = refusal
        yield self._part_event("content_part.added", part=self._whole())

    def _end_part(self) -> Iterator[Json]:
        if self._refuses is None:
            return
        part = self._whole()
        if self._refuses:
            yield self._part_event("refusal.done", refusal=part["refusal"])
        else:
            yield self._part_event("output_text.done", text=part["text"], logprobs=part["logprobs"])
        yield self._part_event("content_part.done", part=part)
        self._content.append(part)
        self._refuses, self._text, self._logprobs = None, [], []

    def _part_event(self, kind: str, **fields: Any) -> Json:
        return self._event(kind, content_index=len(self._content), **fields)

    def _whole(self) -> Json:
        text = "".join(self._text)
        if self._refuses:
            return {"type": "refusal", "refusal": text}
        return _part("output_text", text) | {"annotations": [], "logprobs": list(self._logprobs)}


class Call(_Item):
    """A function that the model calls."""

    prefix = "fc"

    def __init__(self, index: int, number: int, call_id: str, name: str) -> None:
        super().__init__(index)
        self.number = number
        """Of the answer's calls."""
        self._called: Json = {"call_id": call_id, "name": name}
        self._arguments: list[str] = []

    def body(self) -> Json:
        call = {"id": self._id, "type": "function_call", "status": self.status}
        return call | self._called | {"arguments": "".join(self._arguments)}

    def argue(self, text: str) -> Iterator[Json]:
        self._arguments.append(text)
        yield self._event("function_call_arguments.delta", delta=text)

    def close(self, status: Status) -> Iterator[Json]:
        whole = {"name": self._called["name"], "arguments": "".join(self._arguments)}
        yield self._event("function_call_arguments.done", **whole)
        yield from super().close(status)


class Output:
    """The items of one response; one grows after the other.

    Args:
        encrypted: whether thoughts are also told in the form that clients return unread.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self._encrypted = encrypted
        self._items: list[_Item] = []
        self._grows: _Item | None = None
        self._early: list[Json] = []
        """Logprobs of tokens without text, until there is a message that they belong to."""

    @property
    def items(self) -> list[Json]:
        """Those that are done."""
        return [item.body() for item in self._items if item.status != "in_progress"]

    def progress(self, text: str) -> Iterator[Json]:
        """A line about the search."""
        if self._grows is None or isinstance(self._grows, Reasoning):
            reasoning = self._grows or self._reasoning()
            yield from self._turn_to(reasoning)
            yield from reasoning.progress(text)
            return
        # The answer has begun, and goes on: this is an item of its own beside it.
        beside = self._reasoning()
        yield from beside.open()
        yield from beside.progress(text)
        yield from beside.close("completed")

    def say(self, said: Said) -> Iterator[Json]:
        """What the answer grew by."""
        delta = said.delta
        if "reasoning" in delta:
            reasoning = self._grows if isinstance(self._grows, Reasoning) else self._reasoning()
            yield from self._turn_to(reasoning)
            yield from reasoning.think(delta["reasoning"])
        elif "refusal" in delta:
            message = self._message()
            yield from self._turn_to(message)
            yield from message.refuse(delta["refusal"])
        elif "content" in delta:
            yield from self._content(delta["content"], [token_logprob(logprob) for logprob in said.logprobs or ()])
        for call in delta.get("tool_calls", ()):
            yield from self._call(call)

    def end(self, *, cut: bool) -> Iterator[Json]:
        """Closes what still grows; an answer without a word is a message without text."""
        if not cut and (self._grows is None or isinstance(self._grows, Reasoning)):
            yield from self._turn_to(self._add(Message(len(self._items))))
        if self._grows:
            yield from self._grows.close("incomplete" if cut else "completed")

    def _content(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        if not text and not isinstance(self._grows, Message):
            self._early += logprobs
            return
        message = self._message()
        yield from self._turn_to(message)
        early, self._early = self._early, []
        yield from message.say(text, early + logprobs)

    def _message(self) -> Message:
        return self._grows if isinstance(self._grows, Message) else self._add(Message(len(self._items)))

    def _call(self, told: Json) -> Iterator[Json]:
        call = self._grows
        if not isinstance(call, Call) or call.number != told["index"]:
            call = self._add(Call(len(self._items), told["index"], told["id"], told["function"]["name"]))
            yield from self._turn_to(call)
        if told["function"]["arguments"]:
            yield from call.argue(told["function"]["arguments"])

    def _reasoning(self) -> Reasoning:
        return self._add(Reasoning(len(self._items), encrypted=self._encrypted))

    def _add(self, item: AnyItem) -> AnyItem:
        self._items.append(item)
        return item

    def _turn_to(self, item: _Item) -> Iterator[Json]:
        """Closes what grew before another item."""
        if item is self._grows:
            return
        if self._grows:
            yield from self._grows.close("completed")
        self._grows = item
        yield from item.open()


def _part(kind: Literal["summary_text", "reasoning_text", "output_text"], text: str) -> Json:
    return {"type": kind, "text": text}
