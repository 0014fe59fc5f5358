"""Options that strategies share, and what the decorator refuses or prepares for all of them."""

from typing import Annotated, Any

from pydantic import Field

from prm import Aggregation, ProcessRewardModel
from strategies.core.contracts import Refused, Selector, Task
from strategies.core.prompts import BOXED, Example

SystemPrompt = Annotated[
    str | None,
    Field(
        max_length=20_000,
        description="Put before the conversation's own system message. `boxed` stands for: " + BOXED,
    ),
]
Examples = Annotated[
    list[Example] | None,
    Field(max_length=64, description="Few-shot examples: turns of user and assistant before the conversation."),
]
PROMPTING: dict[str, Any] = {"system_prompt": (SystemPrompt, None), "examples": (Examples, None)}
"""Options of every strategy, with their defaults. A strategy that has one among its own keywords applies it itself."""

SampleCount = Annotated[int, Field(ge=1, le=4096, description="Samples to draw.")]
HowToAggregate = Annotated[
    Aggregation | None, Field(description="Step scores to one score; null is the reward model's own default.")
]
Beams = Annotated[int, Field(ge=1, le=4096, description="Beams: solutions searched at once.")]
BeamWidth = Annotated[int, Field(ge=1, le=4096, description="Continuations of each kept beam.")]
HowToSelect = Annotated[Selector, Field(description="How one of the finished beams is chosen.")]
ChainCount = Annotated[int, Field(ge=1, le=4096, description="Independent chains; their answers are voted on.")]


def refuse_choices(task: Task, n: int) -> None:
    """Raises Refused when the client wants more answers back than are sampled."""
    if task.choices > n:
        raise Refused(f"n is at most the strategy's own n ({n}), got {task.choices}", "n")


def refuse_logprobs(task: Task) -> None:
    """Raises Refused when the client wants the logprobs of an answer that is not all the model's own words."""
    if task.sampling.logprobs is not None:
        raise Refused("this strategy changes what the model says, so its answer has no logprobs of its own", "logprobs")


def refuse_unscored(prm: ProcessRewardModel | None, selector: Selector) -> None:
    """Raises Refused when the selector needs scores and there is no reward model."""
    if selector != "majority" and prm is None:
        raise Refused(
            f"the selector {selector!r} needs a reward model and none is loaded; use 'majority' or start the server "
            "with --prm",
            "tts.selector",
        )


def scorer(prm: ProcessRewardModel | None) -> ProcessRewardModel:
    """The reward model that a strategy cannot do without.

    Raises:
        Refused: none is loaded.
    """
    if prm is None:
        raise Refused("this strategy needs a reward model and none is loaded; start the server with --prm", "tts.prm")
    return prm
