"""Turns text into tokens for the families: what users write is text, also where it spells a control token."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from prm.base import PRMError

SLOT = "\ue000"
"""Stands in for a user's text while a chat template is rendered."""
_CACHED_TEXTS = 8192
"""How many texts' tokens are cached: a search encodes the same steps in each of its rounds."""

TokenIds = tuple[int, ...]


class Encoder:
    """A tokenizer of transformers, as the families use it.

    Args:
        tokenizer: a fast one.
        family: the name that errors mention.

    Raises:
        PRMError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any, family: str) -> None:
        self._tokenizer = tokenizer
        self._family = family
        self._plain = _without_added_tokens(tokenizer)
        self._cached = lru_cache(_CACHED_TEXTS)(self._encoded)

    def text(self, text: str) -> TokenIds:
        """The tokens of a text in which no added token is recognised."""
        return self._cached(text)

    def after(self, before: str, text: str) -> TokenIds:
        """The tokens of `text` where it goes on after `before`, whose end is a token boundary there.

        Some tokenizers put a space before a text; that is so only at the beginning.

        Raises:
            PRMError: there is no boundary.
        """
        left, both = self.text(before), self.text(before + text)
        if both[: len(left)] != left:
            raise PRMError(
                f"the tokenizer writes {text[:20]!r} into one token with {before!r}: {self._family} cannot use it"
            )
        return both[len(left) :]

    def control(self, text: str) -> TokenIds:
        """The tokens of a text of the family itself, in which special tokens are recognised."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def opening(self) -> TokenIds:
        """What the tokenizer puts before every text."""
        ids, text = tuple(self._tokenizer.encode("a")), self.text("a")
        return next((ids[:i] for i in range(len(ids)) if ids[i : i + len(text)] == text), ())

    def token(self, name: str) -> int:
        """The id of a token.

        Raises:
            PRMError: the tokenizer lacks it.
        """
        token: int | None = self._tokenizer.get_vocab().get(name)
        if token is None:
            raise PRMError(f"the tokenizer has no token {name!r}, so the model is not of the family {self._family}")
        return token

    def single(self, before: str, text: str) -> int:
        """The one token of `text` after `before`.

        Raises:
            PRMError: it has several.
        """
        ids = self.after(before, text)
        if len(ids) != 1:
            raise PRMError(f"the tokenizer has no token for {text!r}, so the model is not of the family {self._family}")
        return ids[0]

    def apart(self, ids: TokenIds, token: int) -> TokenIds:
        """The same text without `token`, which is spelled out by its characters' tokens, if it has several."""
        if token not in ids:
            return ids
        spelled = tuple(self.token(char) for char in self._tokenizer.convert_ids_to_tokens(token))
        return tuple(part for i in ids for part in (spelled if i == token else (i,)))

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[TokenIds]:
        """The tokens that a chat template writes around the `SLOT`s of some turns (role, content).

        Raises:
            PRMError: there is no template, it does not write each slot once, or the tokenizer does not begin anew
                where a text does.
        """
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except Exception as error:  # a template raises what it likes
            raise PRMError(
                f"the chat template of the tokenizer fails for the family {self._family}: {error}"
            ) from error
        parts = text.split(SLOT)
        if len(parts) != 1 + sum(content.count(SLOT) for _, content in turns):
            raise PRMError(
                f"the chat template of the tokenizer does not write each turn once: {self._family} cannot use it"
            )
        pieces = [self.control(part) for part in parts]
        joined = tuple(i for k, piece in enumerate(pieces) for i in ((*self.text("a"), *piece) if k else piece))
        if joined != self.control(text.replace(SLOT, "a")):
            raise PRMError(f"the tokenizer joins the chat template to the text in it: {self._family} cannot use it")
        return pieces

    def _encoded(self, text: str) -> TokenIds:
        return tuple(self._plain.encode(text, add_special_tokens=False).ids)


def _without_added_tokens(tokenizer: Any) -> Any:
    """Returns the tokenizer without its special and other added tokens, so that none is recognised in a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise PRMError("a reward model needs a fast tokenizer (a tokenizer.json), and there is none")
    description = json.loads(backend.to_str())
    plain = type(backend).from_str(json.dumps({**description, "added_tokens": [], "post_processor": None}))
    plain.no_truncation()
    plain.no_padding()
    return plain
