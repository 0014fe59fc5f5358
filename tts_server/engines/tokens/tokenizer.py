"""A tokenizer of `transformers` for plain text. Knows nothing of engines and chats."""

import asyncio
import copy
import threading
from collections.abc import Mapping
from typing import Any

from strategies.core.contracts import TokenIds
from tts_server.errors import InvalidRequest

_TOLD = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")


class LocalTokenizer:
    """Encodes and decodes on other threads, one call at a time.

    Args:
        tokenizer: one of `transformers`; a copy of it is used.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._size = len(tokenizer)
        self._lock = threading.Lock()

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        return await asyncio.to_thread(self._encode, text, add_special_tokens)

    async def decode(self, token_ids: TokenIds) -> str:
        self._check(token_ids)
        return await asyncio.to_thread(self._decode, token_ids)

    async def spell(self, token_ids: TokenIds) -> list[str]:
        self._check(token_ids)
        return await asyncio.to_thread(self._spell, token_ids)

    async def describe(self) -> Mapping[str, Any]:
        told = {name: getattr(self._tokenizer, name, None) for name in _TOLD}
        return {"tokenizer_class": type(self._tokenizer).__name__, **told}

    def _check(self, token_ids: TokenIds) -> None:
        if unknown := [token for token in token_ids if not 0 <= token < self._size]:
            raise InvalidRequest(f"This model has no token {unknown[0]}: it has {self._size}.", param="tokens")

    def _encode(self, text: str, add_special_tokens: bool) -> TokenIds:
        with self._lock:
            return tuple(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def _decode(self, token_ids: TokenIds) -> str:
        with self._lock:
            text: str = self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)
            return text

    def _spell(self, token_ids: TokenIds) -> list[str]:
        with self._lock:
            return [str(token) for token in self._tokenizer.convert_ids_to_tokens(list(token_ids))]
