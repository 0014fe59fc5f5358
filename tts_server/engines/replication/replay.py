"""A sample that outlives whoever generated it: what it has said, how another goes on with it, and the seam between.

It goes on from token ids, so nothing of it is lost and no text is encoded again. Three things do not go on by
themselves. The lost upstream may have kept text back that belongs to tokens it told, because a stop string might have
begun there; a stop string may begin before the seam and end behind it; and a seeded generator cannot be wound forward.
"""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds

_CONTEXT = 8
"""Tokens of the prompt that are decoded along, because the tokens before it decide how one is spelled."""
_CUT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[TokenIds], Coroutine[Any, Any, str]]


@dataclass(slots=True)
class Branch:
    """One sample of a call, wherever it grows."""

    index: int
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    """Which the upstream counted, also where it does not tell them."""
    ended: bool = False

    @property
    def grown(self) -> bool:
        return self.tokens > 0 or bool(self.texts)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def note(self, chunk: Chunk) -> None:
        """Remembers what it has said."""
        self.token_ids += chunk.token_ids
        self.tokens += chunk.completion_tokens
        if chunk.text:
            self.texts.append(chunk.text)
        self.ended = chunk.finish_reason is not None


def can_continue(sampling: Sampling) -> bool:
    """Whether what is asked for means the same for a sample that begins in its middle.

    A constraint would begin anew there, and the penalties of presence and frequency would forget what was said.
    """
    return not (sampling.structured or sampling.presence_penalty or sampling.frequency_penalty)


def continued(sampling: Sampling, branch: Branch) -> Sampling:
    """What is asked for of a sample's rest. The seed of the rest is derived from the seed, the sample's index and the
    number of its tokens so far.
    """
    said = len(branch.token_ids)
    seed = sampling.seed
    if seed is not None:
        told = f"{seed}:{branch.index}:{said}".encode()
        seed = int.from_bytes(hashlib.blake2b(told, digest_size=7).digest())
    return replace(
        sampling,
        seed=seed,
        max_tokens=None if sampling.max_tokens is None else sampling.max_tokens - said,
        min_tokens=None if sampling.min_tokens is None else max(0, sampling.min_tokens - said),
        prompt_logprobs=None,
    )


async def spelled(prompt: Prompt, branch: Branch, decode: Decode) -> str | None:
    """The whole text of a sample's tokens so far.

    None where it cannot be told for sure: they end inside of a character, or hold what is not shown as text.
    """
    before = prompt.token_ids[-_CONTEXT:]
    context = await decode(before)
    together = await decode((*before, *branch.token_ids))
    text = together.removeprefix(context)
    sure = together.startswith(context) and not context.endswith(_CUT) and not text.endswith(_CUT)
    return text if sure and text.startswith(branch.text) else None


class Seam:
    """Joins the text of a sample's rest to what was said before.

    Args:
        whole: the text of all tokens before the seam.
        sent: how many characters of it were passed on.
        sampling: the sample's.
    """

    def __init__(self, whole: str, sent: int, sampling: Sampling) -> None:
        self._reach = max(map(len, sampling.stop), default=1) - 1
        """How far before or behind the seam a stop string may go that lies across it."""
        self._text = whole
        """All text up to here."""
        self._sent = sent
        self._seam = len(whole)
        self._sampling = sampling
        self.ended = False
        """Whether a stop string was found across the seam: what comes behind it is not the sample's."""

    def join(self, chunk: Chunk) -> Chunk:
        """A chunk of the rest as one of the sample. Text is held back while a stop string may still lie across."""
        if self._seam < 0:
            return chunk
        self._text += chunk.text
        found = self._across()
        if found:
            start, stop = found
            self.ended = True
            end = start + len(stop) if self._sampling.include_stop else start
            return replace(chunk, text=self._text[self._sent : end], finish_reason="stop", stop=stop)
        if len(self._text) - self._seam < self._reach and chunk.finish_reason is None:
            return replace(chunk, text="")
        self._seam = -1
        return replace(chunk, text=self._text[self._sent :])

    def _across(self) -> tuple[int, str] | None:
        """The stop string across the seam that is complete first, and where it starts."""
        first = max(0, self._seam - self._reach)
        window = self._text[first : self._seam + self._reach]
        seam = self._seam - first
        found = [
            (at + len(stop), at, stop)
            for stop in self._sampling.stop
            if 0 <= (at := window.find(stop, max(0, seam - len(stop) + 1))) < seam
        ]
        return (first + min(found)[1], min(found)[2]) if found else None
