"""The fake engine's tokens: pieces of up to six bytes whose id is their bytes, so any text has ids and they a text."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from strategies.core.contracts import TokenIds, TokenLogprob
from tts_server.errors import InvalidRequest

_PIECE = re.compile(r"\s?\S{1,5}|\s")


def pieces(text: str) -> list[str]:
    """The text's tokens as text."""
    short: list[str] = []
    for piece in _PIECE.findall(text):
        short.extend(piece if len(piece.encode()) > 6 else [piece])
    return short


@lru_cache(maxsize=2**16)
def token_id(piece: str) -> int:
    return int.from_bytes(b"\x01" + piece.encode())


def encode(text: str) -> TokenIds:
    return tuple(map(token_id, pieces(text)))


def decode(token_ids: Sequence[int]) -> str:
    return "".join([t.to_bytes((t.bit_length() + 7) // 8).removeprefix(b"\x01").decode() for t in token_ids])


def prompt_logprobs(token_ids: TokenIds, k: int) -> tuple[TokenLogprob, ...]:
    """What a prompt's tokens but the first have for logprobs: it depends on the text up to each of them alone."""
    told: list[TokenLogprob] = []
    before = decode(token_ids[:1])
    for token in token_ids[1:]:
        piece = decode((token,))
        p = random.Random(before + piece).uniform(0.05, 0.95)
        own, rival = TokenLogprob(piece, math.log(p), token), TokenLogprob("~", math.log(1 - p), token_id("~"))
        likeliest = sorted((own, rival), key=lambda entry: -entry.logprob)
        told.append(TokenLogprob(piece, own.logprob, token, tuple(likeliest[:k])))
        before += piece
    return tuple(told)


class FakeTokenizer:
    """The fake's tokens as a tokenizer; texts begin with no special token."""

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        return encode(text)

    async def decode(self, token_ids: TokenIds) -> str:
        return "".join(await self.spell(token_ids))

    async def spell(self, token_ids: TokenIds) -> list[str]:
        try:
            return [decode((token,)) for token in token_ids]
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"The fake engine has no such token: {error.reason}.", param="tokens") from None

    async def describe(self) -> Mapping[str, Any]:
        return {"tokenizer_class": "FakeTokenizer", "bos_token": None, "eos_token": "<eos>", "chat_template": None}
