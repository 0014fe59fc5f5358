"""When a vote needs no more samples: adaptive (2305.11860) and early-stopping self-consistency (2401.10480)."""

import math
from collections import Counter
from collections.abc import Sequence


def is_settled(keys: Sequence[str | None], confidence: float) -> bool:
    """Whether the first answer's true share is above the second's with `confidence`."""
    first, second = ([v for _, v in Counter(key for key in keys if key is not None).most_common(2)] + [0, 0])[:2]
    return chance_ahead(first, second) >= confidence


def chance_ahead(first: int, second: int) -> float:
    """The chance that the first answer's true share is above the second's, all shares being as likely before.

    That is the integral of x^v1 (1-x)^v2 from 1/2 to 1 over that from 0 to 1, which for whole votes is a sum.
    """
    votes = first + second + 1
    return 1 - sum(math.comb(votes, k) for k in range(second + 1)) / (1 << votes)


def is_unanimous(keys: Sequence[str | None], window: int) -> bool:
    """Whether a window of samples has just been filled, and by one answer."""
    return len(keys) % window == 0 and None not in keys[-window:] and len(set(keys[-window:])) == 1
