"""Process reward models: text in steps to one score a step. Knows nothing of HTTP, engines or strategies."""

from prm.aggregate import AGGREGATIONS, Aggregation, aggregate
from prm.base import PRMError, PRMInputError, ProcessRewardModel, StepScores
from prm.steps import split_steps

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "PRMError",
    "PRMInputError",
    "ProcessRewardModel",
    "StepScores",
    "aggregate",
    "split_steps",
]
