"""One sample: chain of thought (Wei et al. 2201.11903; zero-shot: Kojima et al. 2205.11916)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Delta, Engine, Event, Final, Sample, Task
from strategies.sampling.draw import candidates_of, fail_growing, raise_if_all_failed, succeeded
from strategies.sampling.prompts import Examples, SystemPrompt, prompted


@strategy("single", paper="2201.11903, 2205.11916", formed=True)
async def single(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    system_prompt: SystemPrompt = None,
    examples: Examples = None,
) -> AsyncGenerator[Event, None]:
    """Answers with one sample, streamed from its first token; n choices are n samples."""
    task = prompted(task, system_prompt, examples)
    drawn: dict[int, Sample] = {}
    try:
        async with aclosing(engine.generate(task.prompt, task.sampling, task.choices)) as chunks:
            async for chunk in chunks:
                drawn.setdefault(chunk.index, Sample(opening=task.opening)).chunks.append(chunk)
                yield Delta(chunk)
    except BudgetSpent:
        pass
    except Exception as error:
        fail_growing(drawn, error)
    samples = [drawn[index] for index in sorted(drawn)]
    raise_if_all_failed(samples)
    candidates = candidates_of(samples)
    yield Final(tuple(candidates), tuple(i for i, c in enumerate(candidates) if succeeded(c.sample)))
