"""Particle filtering and particle Gibbs over reasoning steps (Puri et al. 2502.01618)."""

import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Task
from strategies.core.options import HowToAggregate, HowToSelect
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens
from strategies.search.trajectory import Trajectory

Resampling = Literal["multinomial", "systematic"]
EDGE = 1e-7
"""Rewards are kept this far from 0 and 1, where their log-odds are infinite."""


@strategy("particle_filter", paper="2502.01618", needs_prm=True, continues=True)
async def particle_filter(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel,
    account: Account,
    *,
    n: Annotated[int, Field(ge=1, le=4096, description="Particles of one iteration.")] = 16,
    iterations: Annotated[
        int, Field(ge=1, le=64, description="More than one is particle Gibbs: each keeps a particle of the one before.")
    ] = 1,
    resampling: Annotated[Resampling, Field(description="How particles are drawn by their weights.")] = "systematic",
    weight_temperature: Annotated[
        float, Field(gt=0, le=100, description="Of the softmax over the rewards' log-odds.")
    ] = 1.0,
    max_steps: MaxSteps = 40,
    step_tokens: StepTokens = 1024,
    separator: Separator = "\n\n",
    selector: HowToSelect = "weighted",
    aggregation: HowToAggregate = None,
) -> AsyncIterator[Event]:
    """Extends all particles by a step, then draws them anew in proportion to the odds of their last steps' scores."""
    search = StepSearch(task, engine, prm, aggregation or prm.aggregation, separator, step_tokens, account)
    rng = random.Random(task.sampling.seed)
    root = await search.root()
    particles: list[Trajectory] = []
    growing: list[Trajectory] = []
    reference: Trajectory | None = None
    for iteration in range(1, iterations + 1):
        n = account.afford(n)
        particles = [root] * n
        for step in range(1, max_steps + 1):
            wanted = copies(particles[1:] if reference else particles)
            if search.is_late([particle for particle, _ in wanted]):
                yield await search.finish(wanted)
                break
            particles = await extended(search, particles, reference, step)
            growing = [p for p in particles if not p.ended]
            yield Progress(f"iteration {iteration}, step {step}: {len(growing)} of {len(particles)} particles grow")
            if search.spent or not growing:
                break
            # Ended particles are drawn too: they hold their share of the weight. The reference always survives.
            shares = weights([search.step_score(p) for p in particles], weight_temperature)
            fixed = [particles[0]] if reference else []
            particles = fixed + [particles[i] for i in resample(shares, n - len(fixed), resampling, rng)]
        search.retire(particles)
        if search.spent or search.finishing.begun or not particles:
            break
        shares = weights([search.step_score(p) for p in particles], weight_temperature)
        reference = particles[resample(shares, 1, "multinomial", rng)[0]]
    # The filter's own weights: each particle stands for as much of the posterior as its reward's odds say.
    yield await search.final(
        selector, growing, account.seconds_left, weight=lambda reward: odds(reward, weight_temperature)
    )


async def extended(
    search: StepSearch, particles: Sequence[Trajectory], reference: Trajectory | None, step: int
) -> list[Trajectory]:
    """Every particle one step on; equal ones in one engine call, ended ones as they are, the reference first."""
    free = list(particles[1:] if reference else particles)
    wanted = copies(free)
    grown = await search.grow(wanted, unique=False) if wanted else []
    kept = [prefix(reference, step)] if reference else []
    return kept + [p for p in free if p.ended] + [child for children in grown for child in children]


def copies(particles: Sequence[Trajectory]) -> list[tuple[Trajectory, int]]:
    """Each particle that can grow, and how many of them are the same one."""
    same: dict[int, list[Trajectory]] = {}
    for particle in particles:
        if not particle.ended:
            same.setdefault(id(particle), []).append(particle)
    return [(group[0], len(group)) for group in same.values()]


def prefix(trajectory: Trajectory, steps: int) -> Trajectory:
    """The trajectory's first steps, with their scores."""
    if steps >= len(trajectory.samples):
        return trajectory
    short = replace(trajectory, samples=trajectory.samples[:steps], ended=False, dropped=0)
    return replace(short, scores=trajectory.scores[: len(short.steps)])


def odds(reward: float, temperature: float) -> float:
    """The odds r / (1 - r) at temperature 1, nearer to one another above it."""
    clipped = min(max(reward, EDGE), 1 - EDGE)
    return float((clipped / (1 - clipped)) ** (1 / temperature))


def weights(rewards: Sequence[float], temperature: float) -> list[float]:
    """softmax(logit(r) / temperature): in proportion to the odds r / (1 - r) at temperature 1."""
    clipped = [min(max(reward, EDGE), 1 - EDGE) for reward in rewards]
    logits = [math.log(r / (1 - r)) / temperature for r in clipped]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


def resample(shares: Sequence[float], n: int, how: Resampling, rng: random.Random) -> list[int]:
    """Indexes, n of them, drawn with these probabilities.

    `systematic` draws one random offset and takes n evenly spaced points, so each index comes floor or ceil of n times
    its share.
    """
    if how == "multinomial":
        return rng.choices(range(len(shares)), shares, k=n)
    offset, drawn, reached, index = rng.random(), list[int](), shares[0], 0
    for k in range(n):
        point = (k + offset) / n
        # Rounding can leave the sum of the shares below the last point.
        while point >= reached and index < len(shares) - 1:
            index += 1
            reached += shares[index]
        drawn.append(index)
    return drawn
