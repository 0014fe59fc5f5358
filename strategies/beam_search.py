"""Beam search guided by a process reward model (Snell et al. 2408.03314, section 5.2)."""

from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Progress, Task
from strategies.core.options import Beams, BeamWidth, HowToAggregate, HowToSelect
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens
from strategies.search.trajectory import ranked, spread, to_ends


@strategy("beam_search", paper="2408.03314", needs_prm=True, continues=True)
async def beam_search(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel,
    account: Account,
    *,
    n: Beams = 16,
    beam_width: BeamWidth = 4,
    lookahead: Annotated[
        int, Field(ge=0, le=16, description="Greedy steps that each candidate is rolled out before it is scored.")
    ] = 0,
    max_steps: MaxSteps = 40,
    step_tokens: StepTokens = None,
    separator: Separator = "\n\n",
    selector: HowToSelect = "weighted",
    aggregation: HowToAggregate = None,
) -> AsyncIterator[Event]:
    """Samples n first steps, then keeps the best n / beam_width and samples beam_width continuations of each."""
    n = account.afford(n)
    search = StepSearch(task, engine, prm, aggregation or prm.aggregation, separator, step_tokens, account)
    beams, taken = [await search.root()], 0
    for step in range(1, max_steps + 1):
        room = n - taken
        if search.is_late(beams):
            yield await search.finish(to_ends(beams, room))
            break
        grown = await search.grow(spread(beams, room), lookahead=lookahead)
        # Ended and growing candidates are ranked together. A kept one that ended gives its place up, so compute shrinks
        # as solutions end; one that ended and is not kept votes, and takes no place from those that go on.
        kept = ranked(grown, search.score)[: max(1, room // beam_width)]
        growing = search.retire([child for siblings in grown for child in siblings])
        best = [beam for beam in kept if not beam.ended]
        taken += len(kept) - len(best)
        yield Progress(f"step {step}: {len(growing)} beams grow, {len(search.leaves)} have ended")
        if search.spent or not best or taken >= n:
            beams = growing or beams
            break
        beams = best
    # Early ends must not outvote the beams by their number (search-and-learn sorts what is complete, too).
    search.leaves = sorted(search.leaves, key=search.score, reverse=True)[:n]
    yield await search.final(selector, beams, account.seconds_left)
