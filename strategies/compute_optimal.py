"""Compute-optimal allocation: a pilot tells how hard a question is, a table what that deserves (2408.03314).

The pilot's samples are votes, and the first steps of a search. Where they agree, they are the answer. Otherwise the arm
is taken whose accuracy on such questions is surely the highest among those that fit the budget, as Liu et al.
(2502.06703) have it for a pair of policy and reward model; votes are drawn in waves and judged again after each. The
table is fitted by `tts-bench calibrate`; without one, published results stand in for it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from prm import Aggregation, ProcessRewardModel
from strategies import strategy
from strategies.allocation.arm_run import ArmRun
from strategies.allocation.arms import VOTES, missing, returns_best
from strategies.allocation.choice import Choice
from strategies.allocation.decision import Reason, decision
from strategies.allocation.pilot import Evidence
from strategies.allocation.policy_table import STOP
from strategies.allocation.replay import ReplayPRM
from strategies.allocation.table import Table
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Incumbent, Progress, Refused, Task
from strategies.core.options import HowToAggregate
from strategies.sampling.draw import with_temperature
from strategies.sampling.stopping import is_settled, is_unanimous


@strategy("compute_optimal", paper="2408.03314, 2502.06703, 2410.04707", scored=True, formed=True)
async def compute_optimal(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    target_accuracy: Annotated[
        float | None,
        Field(gt=0, lt=1, description="The cheapest arm that surely reaches this is taken. Null: the most accurate."),
    ] = None,
    accept_score: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="A pilot that agrees is the answer only if the reward model gives it this score on the mean. "
            "Null: to agree is enough.",
        ),
    ] = None,
    confidence: Annotated[
        float, Field(gt=0.5, lt=1, description="How sure to be of a vote's leader to draw no more.")
    ] = 0.95,
    min_gain: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The rise of the chance of a right answer that a thousand further tokens must promise.",
        ),
    ] = 0.0,
    exploration: Annotated[
        float, Field(ge=0, le=1, description="The share of questions that get another arm that fits, at random.")
    ] = 0.0,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Draws a few samples, and spends on the question what its difficulty deserves and the budget allows."""
    if accept_score is not None and prm is None:
        raise Refused("accept_score needs a reward model and none is loaded", "tts.accept_score")
    table = Table.of(task, engine, prm, account)
    scores = ReplayPRM(prm) if prm and table.can_score and account.budget.max_prm_tokens != 0 else None
    size = table.pilot_size(task, account)
    if size > 1:
        task = replace(task, sampling=with_temperature(task.sampling))
    evidence = Evidence(task, engine, account, bool(table.difficulty and table.difficulty.needs_logprobs))
    choice = Choice(table, evidence, scores, target_accuracy, exploration)
    run: ArmRun | None = None
    async with aclosing(evidence.draw(size)) as lines:
        async for line in lines:
            yield line
    reason = await after_pilot(evidence, table, scores, accept_score, confidence, aggregation)
    yield Incumbent((await evidence.elect("majority")).best)
    while reason is None:
        cell = choice.make()
        yield Progress(choice.line())
        if cell is None or cell.strategy == STOP:
            reason = "no_better_arm"
        elif not choice.is_worth(cell, min_gain):
            reason = "no_gain"
            if evidence.drawn.samples <= evidence.pilot.samples:
                choice.cell = None
        elif cell.strategy in VOTES and not evidence.short and (more := missing(cell, evidence.drawn)):
            # Each wave doubles what there is, so that there are few of them.
            async with aclosing(evidence.draw(min(evidence.drawn.samples, more))) as lines:
                async for line in lines:
                    yield line
            yield Incumbent((await evidence.elect("majority")).best)
            if not evidence.short and not returns_best(cell, scores) and is_settled(evidence.votes, confidence):
                reason = "settled"
        else:
            run = ArmRun(cell, evidence, scores, aggregation)
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event
            reason = run.reason
            if run.refused:
                choice.refuse(cell)
    if run and run.outcome:
        final = await run.joined(run.outcome)
    else:
        final = await evidence.elect("best" if reason == "no_votes" and evidence.is_scored else "majority")
    yield replace(final, decision=decision(choice, final, reason))


async def after_pilot(
    evidence: Evidence,
    table: Table,
    scores: ProcessRewardModel | None,
    accept_score: float | None,
    confidence: float,
    aggregation: Aggregation | None,
) -> Reason | None:
    """Why the pilot's vote is the answer; None: the question deserves more. Scores the pilot where that decides."""
    if evidence.short:
        return "budget"
    agreed = is_unanimous(evidence.votes, len(evidence.votes)) and is_settled(evidence.votes, confidence)
    if agreed and accept_score is None:
        return "unanimous"
    if scores and (table.needs_scores(scores) or accept_score is not None or evidence.is_mute):
        await evidence.score(scores, aggregation)
    score = evidence.mean_score
    if agreed and accept_score is not None and score is not None and score >= accept_score:
        return "unanimous"
    return "no_votes" if evidence.is_mute else None
