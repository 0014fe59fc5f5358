"""What tests of strategies need: worlds for the fake engine to live in, and one way to run a search in them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from prm import ProcessRewardModel
from strategies import Entry
from strategies.core.account import Account, Budget
from strategies.core.contracts import Chunk, Engine, Event, Final, Prompt, Sampling, Task
from strategies.core.metered import MeteredEngine, MeteredPRM
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest, Script


def world(p: float = 0.5, steps: int = 3, gap: int = 0) -> Script:
    """A policy that goes on from wherever its prompt ends: `steps` steps, of which the last names the answer.

    The answer is 1 with probability `p` and else 0. Sample i has `gap` times i more words in each step.
    """

    def script(request: FakeRequest) -> str:
        done = request.text.rpartition("<assistant>")[2].count("\n\n")
        if done >= steps:
            return ""
        words = "".join(f" word{k}" for k in range(gap * request.index))
        thoughts = [f"Thought {k} is {request.rng.randrange(100)}.{words}" for k in range(done + 1, steps)]
        answer = int(request.rng.random() < p)
        return "\n\n".join([*thoughts, rf"The answer is \boxed{{{answer}}}."])

    return script


def broken(script: Script, *indexes: int) -> Script:
    """The same policy, which fails at the samples of these indexes."""

    def failing(request: FakeRequest) -> str | FakeReply:
        if request.index in indexes:
            raise ConnectionError(f"sample {request.index} is lost")
        return script(request)

    return failing


def withheld(how: str, text: str) -> FakeReply:
    """A text that is `filtered` at its end, or that `refuses`."""
    return FakeReply(text, filtered=how == "filtered", refuses=how == "refuses")


class BreakingEngine(FakeEngine):
    """Its first call fails as soon as one of the call's samples has ended."""

    calls = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.calls += 1
        first = self.calls == 1
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                yield chunk
                if first and chunk.finish_reason:
                    raise ConnectionError("the engine is gone")


class LosingEngine(FakeEngine):
    """Each of its samples grows a little and is lost then, the last one first."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        for index in reversed(range(n)):
            self.generated += 1
            yield Chunk(index, "x", (), 1)
        for index in reversed(range(n)):
            yield Chunk(index, finish_reason="error", error=ConnectionError(f"sample {index} is lost"))


class CrowdedEngine(FakeEngine):
    """Remembers how many samples grew at once."""

    peak = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                self.peak = max(self.peak, self.live + (chunk.finish_reason is not None))
                yield chunk


TASK = Task(Prompt(({"role": "user", "content": "Is it 1 or 0?"},)), Sampling(seed=7))


@dataclass(frozen=True, slots=True)
class Search:
    """One finished search."""

    events: tuple[Event, ...]
    account: Account

    @property
    def final(self) -> Final:
        final = self.events[-1]
        assert isinstance(final, Final)
        return final


def begin(
    entry: Entry,
    engine: Engine,
    prm: ProcessRewardModel | None = None,
    *,
    task: Task = TASK,
    account: Account | None = None,
    **options: Any,
) -> AsyncGenerator[Event, None]:
    """The events of a search whose options are checked and completed as the server does it."""
    account = account or Account()
    checked = entry.options.model_validate(options)
    complete = {name: getattr(checked, name) for name in entry.options.model_fields}
    metered = MeteredPRM(prm, account) if prm else None
    return entry.run(task, MeteredEngine(engine, account), metered, account, **complete)


async def search(
    entry: Entry,
    engine: Engine,
    prm: ProcessRewardModel | None = None,
    *,
    task: Task = TASK,
    budget: Budget | None = None,
    **options: Any,
) -> Search:
    """Runs a search to its end."""
    account = Account(budget or Budget())
    async with aclosing(begin(entry, engine, prm, task=task, account=account, **options)) as events:
        return Search(tuple([event async for event in events]), account)
