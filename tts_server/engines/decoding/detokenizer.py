"""Token ids to text as it grows, ended at a stop string. Knows nothing of models."""

from collections.abc import Sequence
from typing import Any

from strategies.core.contracts import TokenIds

_CONTEXT = 8
"""Tokens of the prompt that are decoded along, because the tokens before it decide how one is spelled."""
_CUT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Spells one sample's tokens.

    A character whose bytes are spread over several tokens comes with the last of them, also when the first ones
    stand at the end of the prompt. Special tokens have no text.

    Args:
        tokenizer: one of `transformers`.
        prompt_ids: what the sample continues.
    """

    def __init__(self, tokenizer: Any, prompt_ids: TokenIds) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._from = 0
        known = len(self._ids)
        # A UTF-8 character misses its end for three tokens at most.
        whole = (k for k in range(known, max(known - 4, -1), -1) if not self._decode(0, k).endswith(_CUT))
        self._told = next(whole, known)

    def push(self, token: int) -> str:
        """The text that is certain with this token."""
        self._ids.append(token)
        told = self._decode(self._from, self._told)
        text = self._decode(self._from, len(self._ids))
        if text.endswith(_CUT) or len(text) <= len(told):
            return ""
        self._from, self._told = self._told, len(self._ids)
        return text[len(told) :]

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


class SampleText:
    """One sample's text, which ends at the stop string that is complete first and never shows a part of one.

    Args:
        detokenizer: of this sample.
        stops: the stop strings.
        include_stop: whether the stop string stays at the text's end.
    """

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str], include_stop: bool) -> None:
        self._detokenizer = detokenizer
        self._stops = stops
        self._include_stop = include_stop
        self._held = ""
        self.stop: str | None = None
        """The stop string that was found."""

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """The text that is certain with this token; without `may_stop`, stop strings up to here are plain text."""
        self._held += self._detokenizer.push(token)
        if not may_stop:
            return self.flush()
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            end, start, self.stop = min(found)
            text, self._held = self._held[: end if self._include_stop else start], ""
            return text
        return self._release(len(self._held) - max(map(self._begun, self._stops), default=0))

    def flush(self) -> str:
        """What was held back: the sample is over and no stop string came of it."""
        return self._release(len(self._held))

    def _begun(self, stop: str) -> int:
        """How many characters of this stop string the held text ends with."""
        return next((k for k in range(len(stop) - 1, 0, -1) if self._held.endswith(stop[:k])), 0)

    def _release(self, end: int) -> str:
        text, self._held = self._held[:end], self._held[end:]
        return text
