"""Adaptive branching Monte Carlo tree search, AB-MCTS-A (Inoue et al. 2503.04412), by the library TreeQuest.

Every node is a whole solution. Thompson sampling decides at each of them whether to go wider, with another answer to
the same prompt, or deeper, with a revision of one that is there. TreeQuest keeps the tree and does not know what a
solution is.
"""

import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from prm import ProcessRewardModel, split_steps
from strategies import strategy
from strategies.core.account import Account, BudgetSpent
from strategies.core.concurrency import together
from strategies.core.contracts import Candidate, Engine, Event, Incumbent, Progress, Refused, Selector, Task
from strategies.core.options import HowToAggregate
from strategies.core.parents import numbers_of
from strategies.sampling.draw import candidates_of, elect, scored, scoring_line, with_temperature
from strategies.sampling.drawing import Drawing, raise_if_all_failed
from strategies.search.treequest_tree import Posterior, Tree, Trial, treequest

REVISE = (
    "A verifier gives this solution {score:.2f} on a scale from 0 (wrong) to 1 (right).{doubt}\n\nFind out what is "
    "wrong with it or could be better. Then solve the problem again and write down the whole solution."
)
DOUBT = " This is the step that it doubts most:\n\n{step}"


@strategy("ab_mcts", paper="2503.04412", needs_prm=True, whole=True)
async def ab_mcts(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel,
    account: Account,
    *,
    n: Annotated[int, Field(ge=1, le=1024, description="Solutions to generate, first ones and revisions.")] = 16,
    batch: Annotated[
        int, Field(ge=1, le=64, description="Solutions generated at once. More than about 5 make the tree too wide.")
    ] = 4,
    dist_type: Annotated[
        Posterior,
        Field(description="Posterior of the scores: gaussian is normal-inverse-chi-squared, beta has Jeffreys' prior."),
    ] = "gaussian",
    selector: Annotated[
        Selector | None,
        Field(description="How one of the solutions is chosen; null is the reward model's own default."),
    ] = None,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Generates solutions one after another, each a fresh one or a revision, whichever promises the better score."""
    if task.prompt.template.get("continue_final_message"):
        raise Refused("ab_mcts revises whole solutions and cannot continue a message", "continue_final_message")
    task = replace(task, sampling=with_temperature(task.sampling))
    tree = Tree(await treequest(), dist_type, task.sampling.seed)
    candidates: list[Candidate] = []
    place = 0
    while place < n and not account.stop_reason:
        trials = tree.ask(min(batch, n - place))
        found = await generated(task, engine, trials, place)
        place += len(trials)
        fresh = [candidate for _, candidate in found]
        raise_if_all_failed([candidate.sample for candidate in (*candidates, *fresh)])
        try:
            fresh = await scored(task, fresh, prm, aggregation)
            if any(candidate.unscorable is not None for candidate in fresh):
                yield Progress(scoring_line(fresh, prm))
        except BudgetSpent:
            yield Progress("no budget is left for scores")
        except Exception:
            if not any(c.score is not None for c in candidates):
                raise
            yield Progress("the reward model failed: the last solutions have no scores")
        candidates += fresh
        for (trial, _), candidate in zip(found, fresh, strict=True):
            if candidate.score is not None:
                tree.tell(trial, candidate, candidate.score)
                yield Progress(trial_line(trial, candidate))
        if best := max((c for c in candidates if c.score is not None), key=lambda c: c.score or 0.0, default=None):
            yield Incumbent(best)
    yield await elect(candidates or candidates_of([]), selector or prm.selector, account.seconds_left)


async def generated(task: Task, engine: Engine, trials: Sequence[Trial], place: int) -> list[tuple[Trial, Candidate]]:
    """The trials with their candidates, but for those that the budget left without.

    Trials of one node are one engine call, all calls run at once.
    """
    groups: dict[int, list[int]] = {}
    for i, trial in enumerate(trials):
        groups.setdefault(trial.node_to_expand, []).append(i)
    calls = [
        Drawing.of(seeded(revised(task, trials[members[0]].parent_state), place + members[0]), engine, len(members))
        for members in groups.values()
    ]
    await together([call.run() for call in calls])
    found: dict[int, Candidate] = {}
    for members, call in zip(groups.values(), calls, strict=True):
        if call.samples:
            found.update(zip(members, candidates_of(call.samples), strict=False))
    return [(trials[i], found[i]) for i in sorted(found)]


def revised(task: Task, previous: Candidate | None) -> Task:
    """The task itself, or that of revising a solution: it stands in the chat, with its score and its weakest step."""
    if previous is None:
        return task
    scores, steps = previous.step_scores or (), split_steps(previous.text)
    worst = min(zip(scores, steps, strict=True), key=lambda pair: pair[0], default=None)
    verdict = REVISE.format(
        score=previous.score or 0.0, doubt=DOUBT.format(step=worst[1]) if worst and len(steps) > 1 else ""
    )
    turns: tuple[Mapping[str, Any], ...] = (
        {"role": "assistant", "content": previous.text.rpartition("</think>")[2].strip()},
        {"role": "user", "content": verdict},
    )
    parents = numbers_of([previous.sample])
    return replace(task, prompt=replace(task.prompt, messages=(*task.prompt.messages, *turns), parents=parents))


def seeded(task: Task, place: int) -> Task:
    """The task with a seed of its own for one place of the search."""
    seed = task.sampling.seed
    if seed is None:
        return task
    return replace(task, sampling=replace(task.sampling, seed=random.Random(f"{seed}|{place}").getrandbits(31)))


def trial_line(trial: Trial, candidate: Candidate) -> str:
    how = "a fresh solution" if trial.parent_state is None else f"a revision of solution {trial.node_to_expand + 1}"
    outcome = f"answers {candidate.answer}" if candidate.answer is not None else "gives no answer"
    return f"{how} {outcome} and scores {candidate.score:.3f}"
