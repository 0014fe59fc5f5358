"""Chain of action-thought: reasoning in which each step continues, reflects or explores (Satori, 2502.02508).

The paper trains a model to choose the actions itself, by three tokens of its vocabulary. Any other model can only be
told of them, which is an emulation: the paper's results are not to be expected of it.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Sample, Task
from strategies.core.options import ChainCount
from strategies.core.prompts import prompted
from strategies.sampling.draw import candidates_of, draw, elect

ACTIONS = re.compile(r"<\|(?:continue|reflect|explore)\|>[ \t]?")
INSTRUCTION = (
    "Reason in steps and begin each with one of three markers. <|continue|>: take the next step of the present line "
    "of reasoning. <|reflect|>: pause and check whether the steps so far are right. <|explore|>: say what is wrong "
    "with them and begin a different solution. Reflect after each result that the answer rests on, and explore when a "
    "check fails. End with the final answer."
)


@strategy("chain_of_action_thought", paper="2502.02508", whole=True, edits=True)
async def chain_of_action_thought(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: ChainCount = 1,
    mode: Annotated[
        Literal["auto", "tokens", "prompt"],
        Field(
            description="tokens: the model was trained on the action tokens and needs no telling; prompt: it is told "
            "of them; auto: tokens for a model with Satori in its name, else prompt."
        ),
    ] = "auto",
) -> AsyncGenerator[Event, None]:
    """Lets the model go on, reflect or start over step by step, and returns the solution without those markers."""
    trained = mode == "tokens" or (mode == "auto" and "satori" in engine.model.lower())
    if trained:
        yield Progress("the model chooses its actions by its own tokens")
    else:
        task = prompted(task, INSTRUCTION, None)
        yield Progress("the model is told of the actions by a prompt, which is an emulation")
    samples: list[Sample] = []
    async with aclosing(draw(task, engine, n, samples)) as progress:
        async for line in progress:
            yield line
    yield await elect(candidates_of([without_actions(sample) for sample in samples]), "majority", account.seconds_left)


def without_actions(sample: Sample) -> Sample:
    """The sample without its markers, which may be spread over several chunks; tokens stay counted."""
    marked = {i for found in ACTIONS.finditer(sample.text) for i in range(*found.span())}
    chunks, start = [], 0
    for chunk in sample.chunks:
        kept = (char for i, char in enumerate(chunk.text, start) if i not in marked)
        chunks.append(replace(chunk, text="".join(kept)))
        start += len(chunk.text)
    return Sample(chunks, sample.opening)
