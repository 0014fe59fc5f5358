"""One sample: chain of thought (Wei et al. 2201.11903; zero-shot: Kojima et al. 2205.11916)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Delta, Engine, Event, Final, Task
from strategies.sampling.draw import candidates_of
from strategies.sampling.drawing import Drawing, raise_if_all_failed, succeeded


@strategy("single", paper="2201.11903, 2205.11916", formed=True)
async def single(
    task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account
) -> AsyncGenerator[Event, None]:
    """Answers with one sample, streamed from its first token; n choices are n samples."""
    drawing = Drawing.of(task, engine, task.choices)
    async with aclosing(drawing.chunks()) as chunks:
        async for chunk, _ in chunks:
            yield Delta(chunk)
    drawing.raise_if_lost()
    raise_if_all_failed(drawing.samples)
    candidates = candidates_of(drawing.samples)
    yield Final(tuple(candidates), tuple(i for i, c in enumerate(candidates) if succeeded(c.sample)))
