"""Samples drawn in one engine call each, so that one can be closed while the others go on."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from strategies.answers import canonical
from strategies.core.account import Account
from strategies.core.contracts import Chunk, Engine, Progress, Sample, Task
from strategies.sampling.draw import answer_of, sample_line, with_temperature
from strategies.sampling.drawing import Drawing, raise_if_all_failed, succeeded

T = TypeVar("T")

Key = str | None
"""What one sample answers, canonical; None where it gives no answer."""


async def in_order(begin: Callable[[int], Awaitable[T]], n: int, parallel: int) -> AsyncGenerator[T, None]:
    """Runs begin(0) … begin(n - 1), `parallel` at a time, and yields their results in that order.

    A call that ends early makes room for the next at once, but its result waits for all that began before it: a stop
    that looked at what ends first would favour short answers. The result that is yielded makes room when the next one
    is requested, so nothing begins that the stop would forbid. Closing the iterator cancels what still runs and waits
    for its end.
    """
    places, head = asyncio.Semaphore(parallel), 0

    async def run(index: int) -> T:
        await places.acquire()
        try:
            return await begin(index)
        finally:
            if index != head:
                places.release()

    tasks = [asyncio.create_task(run(index)) for index in range(n)]
    try:
        for task in tasks:
            made_room = task.done()
            yield await task
            head += 1
            if not made_room:
                places.release()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def attempt(task: Task, engine: Engine, index: int, until: Callable[[Chunk], bool] | None = None) -> Sample:
    """The sample number `index`; a failure is recorded in it.

    It has no chunk where the budget allows none, and no finish reason where `until`, asked of each chunk, gave it up.
    """
    sampling = with_temperature(task.sampling)
    if sampling.seed is not None:
        sampling = replace(sampling, seed=sub_seed(sampling.seed, index))
    samples = await Drawing.of(replace(task, sampling=sampling), engine, first=index).run(until)
    return samples[0] if samples else Sample(opening=task.opening)


async def draw_until(
    enough: Callable[[Sequence[Key]], bool],
    task: Task,
    engine: Engine,
    account: Account,
    n: int,
    parallel: int,
    samples: list[Sample],
) -> AsyncGenerator[Progress, None]:
    """Appends samples to `samples` in the order in which they began, until `enough` says so of their answers.

    Those that began after the last one that was looked at are aborted, or left out if they have ended: to count what
    happens to be ready would favour short answers.
    """
    keys: list[Key] = []
    async with aclosing(in_order(partial(attempt, task, engine), n, parallel)) as ended:
        async for sample in ended:
            if not sample.chunks:
                break
            samples.append(sample)
            yield Progress(sample_line(sample.chunks[-1], sample))
            keys.append(await key_of(sample, account))
            if sum(map(succeeded, samples)) >= task.choices and enough(keys):
                yield Progress(f"{len(keys)} of {n} samples are enough")
                break
    raise_if_all_failed(samples)


async def key_of(sample: Sample, account: Account) -> Key:
    answer = answer_of(sample)
    return None if answer is None else (await canonical([answer], account.seconds_left))[0]


def sub_seed(seed: int, *place: object) -> int:
    """A seed of its own for one place of a search, the same in every run."""
    return random.Random("|".join(map(str, (seed, *place)))).getrandbits(31)
