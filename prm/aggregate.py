"""Turns step scores into one score."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

Aggregation = Literal["last", "min", "prod", "mean"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


def aggregate(scores: Sequence[float], how: Aggregation) -> float:
    """Returns one score in [0, 1] from one or more step scores.

    Raises:
        ValueError: there are no scores, or `how` is not one of `AGGREGATIONS`.
    """
    if not scores:
        raise ValueError("there are no step scores to aggregate")
    match how:
        case "last":
            return scores[-1]
        case "min":
            return min(scores)
        case "prod":
            return math.prod(scores)
        case "mean":
            return math.fsum(scores) / len(scores)
        case _:
            raise ValueError(f"aggregation is one of {', '.join(AGGREGATIONS)}, got {how!r}")
