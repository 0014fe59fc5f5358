"""What the strategies that draw whole solutions share: draw, score, vote."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from prm import Aggregation, ProcessRewardModel, aggregate, split_steps
from strategies.answers import Exact, canonical, extract, vote
from strategies.core.contracts import Candidate, Chunk, Engine, Final, Progress, Sample, Sampling, Selector, Task
from strategies.core.parents import Steps
from strategies.sampling.drawing import Drawing, raise_if_all_failed, succeeded

TEMPERATURE = 0.8
"""Of samples that must differ, where the request gives none (search-and-learn's recipes)."""


async def draw(task: Task, engine: Engine, n: int, samples: list[Sample]) -> AsyncGenerator[Progress, None]:
    """Draws n samples in one engine call and appends them to `samples`, telling of each that ends.

    A call that fails after some samples ended keeps those, and the others end with the error; the budget may leave
    fewer than n, or none.

    Raises:
        Exception: the first cause, if no sample came to anything.
    """
    if n > 1:
        task = replace(task, sampling=with_temperature(task.sampling))
    drawing = Drawing.of(task, engine, n)
    has_begun = False
    async with aclosing(drawing.chunks()) as chunks:
        async for chunk, sample in chunks:
            if not has_begun:
                has_begun = True
                yield Progress(f"{n} samples are under way")
            if chunk.finish_reason:
                yield Progress(sample_line(chunk, sample))
    drawing.raise_if_lost()
    samples += drawing.samples
    raise_if_all_failed(samples)


def sample_line(chunk: Chunk, sample: Sample) -> str:
    answer = answer_of(sample)
    line = f"answers {answer}" if answer is not None else "gives no answer"
    if sample.refusal:
        line = "refuses to answer"
    if sample.reading and sample.reading.fault:
        line += f": {sample.reading.fault}"
    return f"sample {chunk.index + 1} ({chunk.finish_reason}, {sample.completion_tokens} tokens) {line}"


def with_temperature(sampling: Sampling) -> Sampling:
    return sampling if sampling.temperature is not None else replace(sampling, temperature=TEMPERATURE)


def candidates_of(samples: Sequence[Sample]) -> list[Candidate]:
    """Each sample with its answer; an empty unfinished one where the budget left none.

    Those that were filtered or refused have an answer only where there are no others.
    """
    if not samples:
        return [Candidate.empty()]
    some = any(succeeded(sample) and not sample.withheld for sample in samples)
    return [Candidate(sample, answer_of(sample) if some else _stated(sample)) for sample in samples]


def answer_of(sample: Sample) -> str | None:
    """What the sample says in the form that the request fixes, else the answer that its text gives.

    One that was filtered or refused gives none.
    """
    return None if sample.withheld else _stated(sample)


def _stated(sample: Sample) -> str | None:
    if not succeeded(sample):
        return None
    if reading := sample.reading:
        return None if reading.answer is None else Exact(reading.answer)
    return extract(sample.text, truncated=not sample.finished, opening=sample.opening)


async def scored(
    task: Task, candidates: Sequence[Candidate], prm: ProcessRewardModel, aggregation: Aggregation | None
) -> list[Candidate]:
    """The candidates with their step scores and score; all in one call.

    Those without text have none, and those that the reward model cannot score.
    """
    steps = [Steps(split_steps(c.text) if succeeded(c.sample) else (), c.sample.number) for c in candidates]
    results = iter(await prm.score(task.question, [s for s in steps if s])) if any(steps) else iter(())
    how = aggregation or prm.aggregation
    marked = list(candidates)
    for i, candidate in enumerate(candidates):
        if not steps[i]:
            continue
        result = next(results)
        if result.fault is not None:
            marked[i] = replace(candidate, unscorable=result.fault)
        else:
            marked[i] = replace(candidate, step_scores=result.scores, score=aggregate(result.scores, how))
    return marked


def scoring_line(candidates: Sequence[Candidate], prm: ProcessRewardModel) -> str:
    """What there is to say of candidates that the reward model was asked about."""
    faults = [candidate.unscorable for candidate in candidates if candidate.unscorable is not None]
    line = f"{len(candidates) - len(faults)} candidates are scored by {prm.name}"
    return f"{line}, {len(faults)} cannot be: {faults[0]}" if faults else line


async def elect(candidates: Sequence[Candidate], selector: Selector | None, within_s: float | None = None) -> Final:
    """The end of a search: votes, weights and ranking; answers are compared for at most `within_s` seconds."""
    answers = [c.answer for c in candidates]
    canonical_keys = iter(await canonical([a for a in answers if a is not None], within_s))
    keys = [None if a is None else next(canonical_keys) for a in answers]
    outcome = vote(candidates, keys, selector or "majority")
    weighed = tuple(replace(c, weight=w) for c, w in zip(candidates, outcome.weights, strict=True))
    return Final(weighed, outcome.ranking, selector, outcome.confidence, outcome.votes)
