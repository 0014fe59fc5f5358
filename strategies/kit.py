"""What a strategy of another package imports: the words of a search, the drawing of samples, and the vote.

These names are kept; other modules of `strategies` may move without notice. `examples/strategy` is a whole package that
needs nothing else.
"""

from prm import Aggregation, PRMError, ProcessRewardModel, StepScores, aggregate, split_steps
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import (
    Candidate,
    Chunk,
    Delta,
    Engine,
    EngineGone,
    Event,
    Final,
    Incumbent,
    Message,
    Progress,
    Prompt,
    Refused,
    Sample,
    Sampling,
    Selector,
    Task,
    TokenLogprob,
    Vote,
    text_of,
)
from strategies.core.options import Examples, SystemPrompt, refuse_choices, refuse_logprobs, refuse_unscored
from strategies.core.prompts import prompted
from strategies.core.registry import strategy
from strategies.sampling.draw import (
    answer_of,
    candidates_of,
    draw,
    elect,
    scored,
)

__all__ = [
    "Account",
    "Aggregation",
    "BudgetSpent",
    "Candidate",
    "Chunk",
    "Delta",
    "Engine",
    "EngineGone",
    "Event",
    "Examples",
    "Final",
    "Incumbent",
    "Message",
    "PRMError",
    "ProcessRewardModel",
    "Progress",
    "Prompt",
    "Refused",
    "Sample",
    "Sampling",
    "Selector",
    "StepScores",
    "SystemPrompt",
    "Task",
    "TokenLogprob",
    "Vote",
    "aggregate",
    "answer_of",
    "candidates_of",
    "draw",
    "elect",
    "prompted",
    "refuse_choices",
    "refuse_logprobs",
    "refuse_unscored",
    "scored",
    "split_steps",
    "strategy",
    "text_of",
]
