"""Process reward models: text in steps to one score a step. Knows nothing of HTTP, engines or strategies."""

from prm.aggregate import AGGREGATIONS, Aggregation, aggregate
from prm.base import (
    OnTokens,
    PRMError,
    PRMInputError,
    ProcessRewardModel,
    StepScores,
    check_scores,
    check_solutions,
)
from prm.fake import FakePRM
from prm.judge import Judge, Verify
from prm.steps import SEPARATOR, split_steps

__all__ = [
    "AGGREGATIONS",
    "SEPARATOR",
    "Aggregation",
    "FakePRM",
    "Judge",
    "OnTokens",
    "PRMError",
    "PRMInputError",
    "ProcessRewardModel",
    "StepScores",
    "Verify",
    "aggregate",
    "check_scores",
    "check_solutions",
    "split_steps",
]
