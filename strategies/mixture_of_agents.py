"""Mixture of agents: layers of proposals, each written with those of the layer before in sight (2406.04692).

The paper's proposers are different models. Here one model is served, so they differ by sampling and, where the request
gives some, by system prompts.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.concurrency import together
from strategies.core.contracts import Engine, Event, Final, Incumbent, Progress, Sample, Task
from strategies.core.parents import numbers_of
from strategies.core.prompts import prompted
from strategies.sampling.dialogue import seeded
from strategies.sampling.draw import candidates_of, elect, with_temperature
from strategies.sampling.drawing import Drawing, raise_if_all_failed, succeeded

AGGREGATE = (
    "Several assistants have answered the user's last message; their answers are below. Any of them may be wrong, "
    "incomplete or one-sided, and that many say the same does not make it right. Check them against each other and "
    "against the question, keep what holds, repair what does not, and write one answer of your own that is complete, "
    "accurate and well ordered. Do not merely repeat one of them and do not mention them."
)


@strategy("mixture_of_agents", paper="2406.04692", whole=True, chat=True)
async def mixture_of_agents(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    layers: Annotated[int, Field(ge=1, le=16, description="Layers; the last one is the aggregator alone.")] = 3,
    proposers: Annotated[int, Field(ge=1, le=64, description="Proposals of each layer before the last.")] = 6,
    proposer_prompts: Annotated[
        list[str] | None,
        Field(
            min_length=1,
            max_length=64,
            description="System prompts that tell the proposers apart, dealt out in turn. Null: they differ by "
            "sampling only.",
        ),
    ] = None,
) -> AsyncGenerator[Event, None]:
    """Draws proposals in layers that build on one another, and has the model write one answer from the last."""
    # Proposals of one prompt are one engine call.
    roles: list[str | None] = list(proposer_prompts[:proposers]) if proposer_prompts else [None]
    shares = [len(range(i, proposers, len(roles))) for i in range(len(roles))]
    by = f"{len(roles)} system prompts" if proposer_prompts else "sampling"
    yield Progress(f"one model proposes {proposers} times a layer; the proposers differ by {by}")
    proposals: list[Sample] = []
    for layer in range(1, layers):
        layer_task = aggregating(task, proposals)
        calls = [
            Drawing.of(seeded_task(prompted(layer_task, role, None), layer, i), engine, share)
            for i, (role, share) in enumerate(zip(roles, shares, strict=True))
        ]
        await together([call.run() for call in calls])
        drawn = [sample for call in calls for sample in call.samples]
        ended = [sample for sample in drawn if sample.finished]
        if not ended and not proposals:
            # The best unfinished proposal is the answer.
            raise_if_all_failed(drawn)
            unfinished = candidates_of([sample for sample in drawn if succeeded(sample)])
            yield await elect(unfinished, "majority", account.seconds_left)
            return
        if not ended:
            break
        proposals = ended
        yield Progress(f"layer {layer}: {len(ended)} of {proposers} proposals")
        yield Incumbent((await elect(candidates_of(proposals), "majority", account.seconds_left)).best)
    last = seeded_task(aggregating(task, proposals), layers, 0, spread=task.choices > 1)
    answers = await Drawing.of(last, engine, task.choices).run()
    yield await chosen(proposals, answers, account.seconds_left)


def aggregating(task: Task, proposals: Sequence[Sample]) -> Task:
    """The task with the proposals in its system prompt, and what to do with them; the task itself without any."""
    if not proposals:
        return task
    answers = (sample.text.rpartition("</think>")[2].strip() for sample in proposals)
    listed = "\n\n".join(f"{i}. {answer}" for i, answer in enumerate(answers, 1))
    task = replace(task, prompt=replace(task.prompt, parents=numbers_of(proposals)))
    return prompted(task, f"{AGGREGATE}\n\nAnswers of the assistants:\n\n{listed}", None)


def seeded_task(task: Task, layer: int, call: int, *, spread: bool = True) -> Task:
    """The task with a seed of its own; with `spread`, at a temperature at which proposals differ."""
    sampling = seeded(task.sampling, layer, call)
    return replace(task, sampling=with_temperature(sampling) if spread else sampling)


async def chosen(proposals: Sequence[Sample], answers: Sequence[Sample], within_s: float | None) -> Final:
    """The aggregator's answers; where it was cut off, the proposals as well, by majority.

    Raises:
        Exception: the first cause, if there are no proposals and all answers failed.
    """
    if not proposals:
        raise_if_all_failed(answers)
    if any(sample.finished for sample in answers) or not proposals:
        candidates = candidates_of(answers)
        return Final(tuple(candidates), tuple(i for i, c in enumerate(candidates) if succeeded(c.sample)))
    return await elect(candidates_of([*proposals, *answers]), "majority", within_s)
