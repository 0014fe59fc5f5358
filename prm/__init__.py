"""Process reward models: text in steps to one score a step. Knows nothing of HTTP, engines or strategies."""

from prm.aggregate import AGGREGATIONS, Aggregation, aggregate
from prm.base import (
    Choice,
    OnTokens,
    PRMError,
    PRMInputError,
    ProcessRewardModel,
    StepScores,
    check_scores,
    check_solutions,
)
from prm.fake import FakePRM
from prm.families.contract import Backend, Classes, Family, FamilyPRM, Head, LabelTokens, Layout, Sigmoid
from prm.families.detect import FAMILIES, detect
from prm.judge import Judge, Verify
from prm.steps import SEPARATOR, split_steps

__all__ = [
    "AGGREGATIONS",
    "FAMILIES",
    "SEPARATOR",
    "Aggregation",
    "Backend",
    "Choice",
    "Classes",
    "FakePRM",
    "Family",
    "FamilyPRM",
    "Head",
    "Judge",
    "LabelTokens",
    "Layout",
    "OnTokens",
    "PRMError",
    "PRMInputError",
    "ProcessRewardModel",
    "Sigmoid",
    "StepScores",
    "Verify",
    "aggregate",
    "check_scores",
    "check_solutions",
    "detect",
    "split_steps",
]
