"""Diverse verifier tree search (Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models")."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.concurrency import together
from strategies.core.contracts import Engine, Event, Task
from strategies.core.options import Beams, BeamWidth, HowToAggregate, HowToSelect
from strategies.search.step_search import MaxSteps, Separator, StepSearch, StepTokens
from strategies.search.trajectory import Trajectory, spread, to_ends


@strategy("dvts", paper="Hugging Face, search-and-learn (2024)", needs_prm=True, continues=True)
async def dvts(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel,
    account: Account,
    *,
    n: Beams = 16,
    beam_width: BeamWidth = 4,
    max_steps: MaxSteps = 40,
    step_tokens: StepTokens = None,
    separator: Separator = "\n\n",
    selector: HowToSelect = "weighted",
    aggregation: HowToAggregate = None,
) -> AsyncIterator[Event]:
    """Searches n / beam_width independent subtrees greedily; the last candidates of all of them vote."""
    n = account.afford(n)
    search = StepSearch(task, engine, prm, aggregation or prm.aggregation, separator, step_tokens, account)
    root = await search.root()
    pool: list[Trajectory] = []

    async def subtree(place: int, width: int) -> None:
        best = root
        candidates: list[Trajectory] = []
        for step in range(1, max_steps + 1):
            if search.is_late([best]):
                search.tell(f"subtree {place + 1}: {(await search.finish(to_ends([best], width), place=place)).text}")
                candidates = [candidate for candidate in candidates if candidate.ended]
                break
            children = (await search.try_growing([(best, width)], place=place))[0]
            if not children:
                # What the budget cut off still counts; a failure takes its subtree with it.
                candidates = candidates if search.spent else []
                break
            candidates, best = children, max(children, key=search.score)
            search.tell(f"subtree {place + 1}, step {step}: kept a step of score {search.score(best):.3f}")
            if best.ended:
                break
        pool.extend(candidates)

    # The subtrees never wait for one another.
    widths = [width for _, width in spread([root] * max(1, n // beam_width), n)]
    work = together([subtree(place, width) for place, width in enumerate(widths)])
    async with aclosing(search.running(work)) as progress:
        async for line in progress:
            yield line
    yield await search.final(selector, search.retire(pool), account.seconds_left)
