"""What an upstream sends, taken for what it has to be: its JSON may hold anything anywhere."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from strategies.core.contracts import TokenIds

MISFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
"""What reading raises where something has another type or shape than OpenAI's format says."""

_MOST = 2**53
"""No count and no token id is as large: beyond it JSON's numbers are not exact."""


class Usage(NamedTuple):
    """What an upstream tells of its tokens."""

    completion: int | None = None
    prompt: int = 0
    cached: int = 0


def usage_in(frame: Mapping[str, Any]) -> Usage | None:
    """A frame's usage, if it tells any: by itself, in an extension of Groq's, or in Moonshot's last choice.

    A count that is none is not told: an answer does not fail of its bill.
    """
    told = frame.get("usage") or (frame.get("x_groq") or {}).get("usage")
    if not told and (choices := frame.get("choices")):
        told = choices[0].get("usage")
    if not told:
        return None
    details: Mapping[str, Any] = told.get("prompt_tokens_details") or {}
    return Usage(
        _count_in(told.get("completion_tokens")),
        _count_in(told.get("prompt_tokens")) or 0,
        _count_in(details.get("cached_tokens")) or 0,
    )


def _count_in(value: Any) -> int | None:
    """A count that may be written as a fraction or in quotes."""
    try:
        return number_in(int(value))
    except (TypeError, ValueError, OverflowError):
        return None


def number_in(value: Any) -> int:
    """A count or a token id.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError("a count or a token id that is none")
    return value


def ids_in(answer: Any) -> TokenIds:
    """The token ids of an answer to `/tokenize`; none where it is none."""
    match answer:
        case {"tokens": [*ids]} if all(type(token) is int and 0 <= token < _MOST for token in ids):
            return tuple(ids)
    return ()


def text_in(value: Any) -> str:
    """A text; nothing is an empty one.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError("something that is no text")
    return value or ""


def logprob_in(value: Any) -> float:
    """A logprob, which rounding may have left above 0.

    Raises:
        ValueError: it is none.
    """
    if type(value) not in (int, float) or value > 1:
        raise ValueError("a logprob that is none")
    return float(value)
