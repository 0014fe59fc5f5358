"""Sequential revisions: Self-Refine's feedback loop (2303.17651), in parallel chains (Snell et al. 2408.03314)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Incumbent, Progress, Refused, Sample, Task
from strategies.core.options import ChainCount, HowToAggregate
from strategies.sampling.draw import draw
from strategies.search.revision_chains import Accept, Revisions


@strategy("self_refine", paper="2303.17651, 2408.03314", scored=True, whole=True, chat=True)
async def self_refine(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: ChainCount = 1,
    revisions: Annotated[int, Field(ge=0, le=64, description="Revisions of each chain, at most.")] = 4,
    accept: Annotated[
        Accept | None,
        Field(
            description="score: a chain goes on from a revision only if its score rises, and all its attempts vote by "
            "their scores, as in the paper; majority: each is kept, and the most frequent answer of a chain counts; "
            "last: each is kept, and the last one counts. Null: score where there is a reward model, else last."
        ),
    ] = None,
    feedback_tokens: Annotated[int, Field(ge=1, description="Tokens of one review.")] = 1024,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Has the model review its solution and revise it, in one or more chains; a reward model keeps what got better."""
    if accept == "score" and prm is None:
        raise Refused("revisions are accepted by score and no reward model is loaded; use 'last'", "tts.accept")
    judge = prm if accept in ("score", None) else None
    search = Revisions(task, engine, judge, aggregation, feedback_tokens, account)
    samples: list[Sample] = []
    async with aclosing(draw(task, engine, n, samples)) as progress:
        async for line in progress:
            yield line
    await search.start(samples)
    for revision in range(1, revisions + 1):
        growing = [chain for chain in search.chains if chain.grows]
        if search.spent or not growing:
            break
        yield Incumbent((await search.final(accept)).best)
        kept = await search.revise(growing, revision)
        yield Progress(f"revision {revision}: {kept} of {len(growing)} chains keep theirs")
    yield await search.final(accept)
