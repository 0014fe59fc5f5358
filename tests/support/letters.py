"""A world of letters for step searches: sample i of a call writes the i-th letter, and a letter has a known score."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import strategies
from prm.fake import FakePRM
from strategies.core.account import Account, Budget
from strategies.core.contracts import Event, Final, Progress, Prompt, Sampling, Task
from strategies.core.metered import MeteredEngine, MeteredPRM
from tts_server.engines.fake import FakeEngine, FakeRequest

SCORES = {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.1}
TASK = Task(Prompt(({"role": "user", "content": "Which letters?"},)), Sampling(seed=1))


def letters_world(depth: int) -> Any:
    """Steps `a1`, `b1`, …, and at `depth` the end: the last letter, boxed."""

    def script(request: FakeRequest) -> str:
        said = request.text.rpartition("<assistant>")[2]
        step, letter = said.count("\n\n") + 1, "abcd"[request.index % 4]
        return f"{letter}{step} \\boxed{{{letter}}}" if step == depth else f"{letter}{step}\n\nwhat follows"

    return script


def by_letter(question: str, steps: Sequence[str]) -> list[float]:
    return [SCORES.get(step[0], 0.5) for step in steps]


class Done:
    """One search that has run: its events, engine, account and calls of the reward model."""

    def __init__(
        self,
        name: str,
        *,
        depth: int = 3,
        task: Task = TASK,
        budget: Budget | None = None,
        script: Any = None,
        letters: bool = True,
        **options: Any,
    ):
        self.engine = FakeEngine(script or letters_world(depth))
        self.account = Account(budget or Budget())
        self.scored: list[tuple[str, ...]] = []
        entry = strategies.get(name)
        complete = {**{k: f.default for k, f in entry.options.model_fields.items()}, **options}

        def score(question: str, steps: Sequence[str]) -> list[float]:
            self.scored.append(tuple(steps))
            if letters:
                return by_letter(question, steps)
            return [0.05 if step.startswith("I give up") else 0.9 for step in steps]

        prm = MeteredPRM(FakePRM(score), self.account)
        engine = MeteredEngine(self.engine, self.account)
        run: AsyncIterator[Event] = entry.run(task, engine, prm, self.account, **complete)
        self.events = asyncio.run(_all(run))

    @property
    def final(self) -> Final:
        assert isinstance(self.events[-1], Final)
        return self.events[-1]

    @property
    def progress(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Progress)]

    @property
    def paths(self) -> list[str]:
        """The letters of each candidate's steps."""
        return ["".join(step[0] for step in c.text.split("\n\n") if step) for c in self.final.candidates]


async def _all(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]
