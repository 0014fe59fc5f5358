"""A classification head's values at one token, and the score they say."""

import math
from collections.abc import Sequence

from prm import PRMError
from prm.families.contract import Classes, Head, LabelTokens, Sigmoid


def width(head: Head) -> int:
    """How many values the head gives at a token.

    Raises:
        PRMError: it is no classification head.
    """
    match head:
        case Classes():
            return 2
        case Sigmoid():
            return 1
        case LabelTokens():
            raise PRMError("the labels of a language model are read by generating, not by pooling")


def score(head: Head, values: Sequence[float]) -> float:
    """The score in [0, 1] that values say, before any activation.

    Raises:
        PRMError: these are not the values of such a head.
    """
    if len(values) != width(head):
        raise PRMError(f"the model gives {len(values)} numbers at a token, where its family has {width(head)}")
    if not all(map(math.isfinite, values)):
        raise PRMError(f"the model gives {values!r} at a token, which is no score")
    # Of two classes the softmax is the sigmoid of their difference.
    logit = values[head.right] - values[1 - head.right] if isinstance(head, Classes) else values[0]
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
