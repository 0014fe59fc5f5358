"""A sample whose replica was lost: what has come of it, how another replica continues it, and the seam between the two.

The other replica continues from token ids, so nothing is lost and no text is encoded again. Three things need care. The
lost replica may have held back text of tokens that it had sent, because a stop string might begin there. A stop string
may begin before the seam and end behind it. And a seeded generator cannot be wound forward.
"""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds

_CONTEXT = 8
"""Tokens of the prompt that are decoded too: how a token is spelled depends on the tokens before it."""
_CUT = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[TokenIds], Coroutine[Any, Any, str]]


@dataclass(slots=True)
class Branch:
    """One sample of a call, on whichever replica it grows."""

    index: int
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    """The upstream's count, also where it does not send the tokens' ids."""
    ended: bool = False

    @property
    def grown(self) -> bool:
        return self.tokens > 0 or bool(self.texts)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def note(self, chunk: Chunk) -> None:
        """Adds a chunk to what has come of the sample."""
        self.token_ids += chunk.token_ids
        self.tokens += chunk.completion_tokens
        if chunk.text:
            self.texts.append(chunk.text)
        self.ended = chunk.finish_reason is not None


def can_continue(sampling: Sampling) -> bool:
    """Whether the sampling means the same for the rest of a sample as for the whole.

    A grammar would begin anew at the seam, and the penalties of presence and frequency would forget the text before it.
    """
    return not (sampling.structured or sampling.presence_penalty or sampling.frequency_penalty)


def continued(sampling: Sampling, branch: Branch) -> Sampling:
    """The sampling of a sample's rest.

    Its seed is derived from the sample's seed and index and from the number of its tokens so far.
    """
    begun = len(branch.token_ids)
    seed = sampling.seed
    if seed is not None:
        source = f"{seed}:{branch.index}:{begun}".encode()
        seed = int.from_bytes(hashlib.blake2b(source, digest_size=7).digest())
    return replace(
        sampling,
        seed=seed,
        max_tokens=None if sampling.max_tokens is None else sampling.max_tokens - begun,
        min_tokens=None if sampling.min_tokens is None else max(0, sampling.min_tokens - begun),
        prompt_logprobs=None,
    )


async def spelled(prompt: Prompt, branch: Branch, decode: Decode) -> str | None:
    """The whole text of a sample's tokens so far; None where they end inside a character or hold control tokens."""
    before = prompt.token_ids[-_CONTEXT:]
    context = await decode(before)
    together = await decode((*before, *branch.token_ids))
    text = together.removeprefix(context)
    sure = together.startswith(context) and not context.endswith(_CUT) and not text.endswith(_CUT)
    return text if sure and text.startswith(branch.text) else None


class Seam:
    """Joins the text of a sample's rest to the text before it.

    Args:
        whole: the text of all tokens before the seam.
        sent: how many characters of it the client has.
        sampling: that of the sample.
    """

    def __init__(self, whole: str, sent: int, sampling: Sampling) -> None:
        self._reach = max(map(len, sampling.stop), default=1) - 1
        """How many characters a stop string across the seam can have on one side of it."""
        self._text = whole
        """All text up to here."""
        self._sent = sent
        self._seam = len(whole)
        self._sampling = sampling
        self.ended = False
        """Whether a stop string lay across the seam: the sample ends there, whatever else comes."""

    def join(self, chunk: Chunk) -> Chunk:
        """Turns a chunk of the rest into one of the sample.

        Text is held back while a stop string may still lie across the seam.
        """
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
        """The stop string across the seam that ends first, and where it starts."""
        first = max(0, self._seam - self._reach)
        window = self._text[first : self._seam + self._reach]
        seam = self._seam - first
        found = [
            (at + len(stop), at, stop)
            for stop in self._sampling.stop
            if 0 <= (at := window.find(stop, max(0, seam - len(stop) + 1))) < seam
        ]
        return (first + min(found)[1], min(found)[2]) if found else None
