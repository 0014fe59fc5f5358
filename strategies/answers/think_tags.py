"""Thoughts and answers: what stands between `<think>` and `</think>` at a text's beginning is not the answer.

A template that opens the thought itself leaves no `<think>` in what the model says: whoever knows the template puts it
there, so that every text here tells by itself what it is.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from strategies.core.contracts import Chunk

OPEN, CLOSE = "<think>", "</think>"


class Parts(NamedTuple):
    """What a text is made of; white space around the thought belongs to neither."""

    thought: str = ""
    answer: str = ""


class Splitter:
    """Splits a text as it grows, in the same way wherever it is cut."""

    def __init__(self) -> None:
        self._place: Literal["start", "thought", "gap", "answer"] = "start"
        self._held = ""
        self._begun = False
        """Whether the thought has any text yet."""
        self._thought = False

    @property
    def thinking(self) -> bool:
        """Whether the thought is not closed yet."""
        return self._place == "thought"

    @property
    def thought(self) -> bool:
        """Whether there is a thought, closed or not."""
        return self._thought

    @property
    def deciding(self) -> bool:
        """Whether it may yet begin with a thought."""
        return self._place == "start"

    def push(self, text: str) -> Parts:
        """What is certain now; a piece that may yet turn out to be a tag is held back."""
        match self._place:
            case "answer":
                return Parts(answer=text)
            case "gap":
                return Parts(answer=self._answer(text))
            case "thought":
                return self._think(text)
        text = self._held + text
        bare = text.lstrip()
        if bare.startswith(OPEN):
            self._place, self._held, self._thought = "thought", "", True
            return self._think(bare.removeprefix(OPEN))
        if OPEN.startswith(bare):
            self._held = text
            return Parts()
        self._place, self._held = "answer", ""
        return Parts(answer=text)

    def end(self) -> Parts:
        """What was held back."""
        held, self._held = self._held, ""
        return Parts(thought=held.rstrip()) if self._place == "thought" else Parts(answer=held)

    def _think(self, text: str) -> Parts:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        thought, closed, rest = text.partition(CLOSE)
        if closed:
            self._place, self._held = "gap", ""
            return Parts(thought.rstrip(), self._answer(rest))
        sure = len(text) - overlap(text, CLOSE)
        sure = len(text[:sure].rstrip())
        self._held, self._begun = text[sure:], self._begun or sure > 0
        return Parts(thought=text[:sure])

    def _answer(self, text: str) -> str:
        text = text.lstrip()
        self._place = "answer" if text else "gap"
        return text


def split(text: str) -> Parts:
    """The thought that a text begins with, closed or not, and the answer."""
    if not text.lstrip().startswith(OPEN):
        return Parts(answer=text)
    splitter = Splitter()
    first, last = splitter.push(text), splitter.end()
    return Parts(first.thought + last.thought, first.answer + last.answer)


def answer_tokens(chunks: Sequence[Chunk]) -> int:
    """How many of a sample's tokens are not of its thought; a token that holds the end of both counts."""
    if not "".join(chunk.text for chunk in chunks).lstrip().startswith(OPEN):
        return sum(chunk.completion_tokens for chunk in chunks)
    splitter, tokens = Splitter(), 0
    for chunk in chunks:
        thinking = splitter.thinking
        answer = splitter.push(chunk.text).answer
        if answer or not (thinking or splitter.thinking or splitter.deciding):
            tokens += chunk.completion_tokens
    return tokens


def overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`, but not all of it."""
    return next((k for k in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:k])), 0)
