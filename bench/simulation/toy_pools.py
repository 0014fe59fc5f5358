"""Pools of samples from the toy world, as runs of a server would have stored them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from bench.rescoring.estimates import Stored
from bench.rescoring.pools import Answered
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import ToyEngine, World
from bench.stored.records import Record, SampleRecord, Usage
from prm import aggregate, split_steps
from strategies.answers import extract
from strategies.core.contracts import Sample


async def pool_of(world: World, prm: ToyPRM, n: int, seed: int) -> Answered:
    """One question's samples, scored and graded; in the toy world equal texts are equal answers."""
    samples = [Sample() for _ in range(n)]
    task = world.task(seed)
    async for chunk in ToyEngine(world).generate(task.prompt, task.sampling, n):
        samples[chunk.index].chunks.append(chunk)
    read: list[int] = []
    scores = await prm.score(task.question, [split_steps(sample.text) for sample in samples], on_tokens=read.append)
    answers = tuple(extract(sample.text) for sample in samples)
    usage = Usage(completion_tokens=sum(s.completion_tokens for s in samples), prm_tokens=sum(read), samples=n)
    told = tuple(
        SampleRecord(
            text=sample.text,
            answer=answer,
            step_scores=step_scores.scores,
            score=aggregate(step_scores.scores, prm.aggregation),
            completion_tokens=sample.completion_tokens,
            finish_reason="stop",
        )
        for sample, answer, step_scores in zip(samples, answers, scores, strict=True)
    )
    record = Record(id=str(world.seed), question=world.question, gold=world.gold, samples=told, usage=usage)
    return Answered(record, answers, answers, tuple(answer == world.gold for answer in answers))


def toy_pool(worlds: Sequence[World], prm: ToyPRM, n: int) -> Stored:
    """Samples of many questions."""

    async def main() -> tuple[Answered, ...]:
        return tuple([await pool_of(world, prm, n, world.seed) for world in worlds])

    return Stored(Path("toy world"), asyncio.run(main()))
