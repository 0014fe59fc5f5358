"""A sample as the client hears it: its thought as reasoning, its calls of tools apart from its content."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from strategies.answers.think_tags import Splitter, split
from strategies.core.contracts import Chunk, Sample, TokenLogprob
from tts_server.forms.call_readers import Piece, Plain, Reader
from tts_server.forms.form import Form
from tts_server.schema.ids import unique

Json = dict[str, Any]


class Said(NamedTuple):
    """What a message grows by, as OpenAI's `delta`, with the logprobs of its tokens."""

    delta: Json
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the tokens that said it; None for what is no answer or was told before."""


class Voice:
    """Renders one sample's chunks, one after the other: the same for a stream and for a whole body.

    Args:
        form: in which its answer is read; in words if not given.
        logprobs: whether the client asked for them; those of the thought are none of the answer's.
        thoughts: whether the client wants to read them.
    """

    def __init__(self, form: Form | None, *, logprobs: bool, thoughts: bool = True) -> None:
        self.calls = False
        """Whether a tool is called."""
        self._splitter = Splitter()
        self._reader: Reader = form.reader() if form else Plain()
        self._logprobs = logprobs
        self._thoughts = thoughts
        self._first: tuple[TokenLogprob, ...] = ()

    def hear(self, chunk: Chunk) -> Iterator[Said]:
        """What a chunk adds."""
        if chunk.refusal:
            yield Said({"refusal": chunk.refusal}, chunk.logprobs if self._logprobs and not chunk.text else None)
            if not chunk.text:
                return
        thinking = self._splitter.thinking
        thought, answer = self._splitter.push(chunk.text)
        if thought and self._thoughts:
            yield reasoning(thought)
        deltas = [self._delta(piece) for piece in self._reader.push(answer)]
        logprobs = self._told(chunk, answer=bool(answer) or not (thinking or self._splitter.thinking))
        if logprobs and not deltas:
            # A token can be without text of its own, being part of a character or held back.
            deltas = [{"content": ""}]
        for i, delta in enumerate(deltas):
            yield Said(delta, None if i else logprobs)

    def end(self) -> Iterator[Said]:
        """What was held back."""
        thought, answer = self._splitter.end()
        if thought and self._thoughts:
            yield reasoning(thought)
        deltas = [self._delta(piece) for piece in (*self._reader.push(answer), *self._reader.end())]
        if self._first and not deltas:
            deltas = [{"content": ""}]
        for i, delta in enumerate(deltas):
            yield Said(delta, None if i else self._first)

    def _told(self, chunk: Chunk, *, answer: bool) -> tuple[TokenLogprob, ...]:
        """The logprobs that go out with a chunk; those before it is certain that there is no thought wait for that."""
        if not self._logprobs:
            return ()
        if self._splitter.deciding:
            self._first += chunk.logprobs
            return ()
        first, self._first = self._first, ()
        return (() if self._splitter.thought else first) + (chunk.logprobs if answer else ())

    def all(self, sample: Sample) -> Iterator[Said]:
        """A whole sample, piece by piece."""
        for chunk in sample.chunks:
            yield from self.hear(chunk)
        yield from self.end()

    def at_once(self, sample: Sample) -> Iterator[Said]:
        """A whole sample in as few pieces as can be."""
        if self._logprobs and split(sample.text).thought:
            return self.all(sample)  # only its pieces tell which tokens are the thought's
        return self.all(Sample([Chunk(0, text=sample.text, refusal=sample.refusal, logprobs=sample.logprobs)]))

    def _delta(self, piece: Piece) -> Json:
        if piece.call is None:
            return {"content": piece.content}
        self.calls = True
        call: Json = {"index": piece.call, "function": {"arguments": piece.arguments}}
        if piece.name is not None:
            call |= {"id": f"call_{unique()[:24]}", "type": "function"}
            call["function"] = {"name": piece.name, "arguments": piece.arguments}
        return {"tool_calls": [call]}


def reasoning(text: str) -> Said:
    """Text that is no answer, under the names that clients know."""
    return Said({"reasoning": text, "reasoning_content": text})


def message(said: Iterable[Said]) -> Json:
    """All that was said as one `message`."""
    content: list[str] = []
    thought: list[str] = []
    refusal: list[str] = []
    calls: list[Json] = []
    for delta, _ in said:
        content.append(delta.get("content", ""))
        thought.append(delta.get("reasoning", ""))
        refusal.append(delta.get("refusal", ""))
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                calls.append({"id": part["id"], "type": "function", "function": dict(part["function"])})
            else:
                calls[-1]["function"]["arguments"] += part["function"]["arguments"]
    whole: Json = {"role": "assistant", "content": "".join(content), "refusal": "".join(refusal) or None}
    if any(thought):
        whole |= reasoning("".join(thought)).delta
    if calls or whole["refusal"]:
        whole["content"] = whole["content"] or None
    if calls:
        whole["tool_calls"] = calls
    return whole
