"""The fake engine's tokens: pieces of up to six bytes whose id is their bytes, so any text has ids and they a text."""

import re
from collections.abc import Sequence

from strategies.base import TokenIds

_PIECE = re.compile(r"\s?\S{1,5}|\s")


def pieces(text: str) -> list[str]:
    """The text's tokens as text."""
    short: list[str] = []
    for piece in _PIECE.findall(text):
        short.extend(piece if len(piece.encode()) > 6 else [piece])
    return short


def token_id(piece: str) -> int:
    return int.from_bytes(b"\x01" + piece.encode())


def encode(text: str) -> TokenIds:
    return tuple(map(token_id, pieces(text)))


def decode(token_ids: Sequence[int]) -> str:
    return "".join(t.to_bytes((t.bit_length() + 7) // 8).removeprefix(b"\x01").decode() for t in token_ids)
