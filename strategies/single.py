"""One sample: chain of thought (Wei et al. 2201.11903; zero-shot: Kojima et al. 2205.11916)."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from prm import ProcessRewardModel
from strategies import strategy
from strategies.base import Delta, Engine, Event, Final, Sample, Task
from strategies.budget import Account, BudgetSpent
from strategies.prompts import Examples, SystemPrompt, prompted
from strategies.sampling import candidates_of, raise_if_all_failed, succeeded


@strategy("single", paper="2201.11903, 2205.11916")
async def single(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncIterator[Event]:
    """Answers with one sample, streamed from its first token; n choices are n samples."""
    task = prompted(task, system_prompt, examples)
    samples = [Sample() for _ in range(task.choices)]
    try:
        async with aclosing(engine.generate(task.prompt, task.sampling, task.choices)) as chunks:
            async for chunk in chunks:
                samples[chunk.index].chunks.append(chunk)
                yield Delta(chunk)
    except BudgetSpent:
        pass
    samples = [sample for sample in samples if sample.chunks]
    raise_if_all_failed(samples)
    candidates = candidates_of(samples)
    yield Final(tuple(candidates), tuple(i for i, c in enumerate(candidates) if succeeded(c.sample)))
