"""Graph of thoughts: solutions are written, scored, chosen, merged and refined by a graph (Besta et al. 2308.09687)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.concurrency import together
from strategies.core.contracts import Engine, Event, Final, Progress, Refused, Sample, Task
from strategies.core.options import HowToAggregate
from strategies.core.parents import numbers_of
from strategies.search.thought_calls import (
    UNVALUED,
    EvaluationTokens,
    Evaluator,
    Policy,
    Value,
    nothing,
    refuse_unthinkable,
    vote_by_value,
    with_failed,
)
from strategies.search.thought_graph import (
    DEFAULT,
    Aggregate,
    Generate,
    Graph,
    KeepBest,
    Operation,
    Refine,
    Score,
    edges_of,
    ends_of,
    names_of,
    written_by,
)

_FURTHER = r"Write another solution, guided by this one. Put the final answer within \boxed{}."
_MERGE = (
    "Merge these solutions into one: take what is right in each, settle where they differ, and leave out what is "
    r"wrong. Write the whole solution. Put the final answer within \boxed{}."
)
_REFINE = (
    "Check this solution step by step, correct what is wrong and complete what is missing. Write the whole improved "
    r"solution. Put the final answer within \boxed{}."
)


@dataclass(frozen=True, slots=True)
class Thought:
    """A solution and what it is worth."""

    sample: Sample
    value: Value = UNVALUED

    @property
    def text(self) -> str:
        return self.sample.text

    @property
    def number(self) -> int | None:
        return self.sample.number


@strategy("graph_of_thoughts", paper="2308.09687", scored=True)
async def graph_of_thoughts(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    graph: Annotated[
        Graph | None,
        Field(
            description="Operations, each on the thoughts of the one before it or of those that it names in `after`; "
            "the thoughts that none takes answer. Null: generate 4, score, keep the best 3, aggregate, refine, score, "
            "keep the best."
        ),
    ] = None,
    evaluation_tokens: EvaluationTokens = 1000,
    aggregation: HowToAggregate = None,
) -> AsyncGenerator[Event, None]:
    """Runs a graph of operations on whole solutions: generate, score, keep the best, aggregate and refine."""
    refuse_unthinkable(task, None, loaded=prm is not None)
    graph = graph or DEFAULT
    if task.choices > written_by(graph):
        raise Refused(f"n is at most the thoughts that the graph writes ({written_by(graph)}), got {task.choices}", "n")
    policy = Policy(task, engine)
    search = Search(graph, policy, Evaluator(policy, prm, aggregation, evaluation_tokens))
    async with aclosing(search.run()) as progress:
        async for line in progress:
            yield line
    yield with_failed(await search.final(account.seconds_left), policy)


@dataclass(slots=True)
class Search:
    """One graph under way. Operations run as soon as those before them have ended, so independent ones run at once."""

    graph: Sequence[Operation]
    policy: Policy
    evaluator: Evaluator
    results: dict[str, list[Thought]] = field(default_factory=dict)
    written: dict[str, list[Thought]] = field(default_factory=dict)
    cut: list[Thought] = field(default_factory=list)
    blank: list[Thought] = field(default_factory=list)
    """What the model ended without a word, with which no operation can do anything."""

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Runs the graph and tells of each operation, in the order in which they are listed."""
        edges, works = edges_of(self.graph), dict[str, asyncio.Task[list[Thought]]]()

        async def work(name: str, operation: Operation) -> list[Thought]:
            taken = [thought for other in edges[name] for thought in await works[other]]
            return await self._done(name, operation, taken)

        try:
            for name, operation in zip(names_of(self.graph), self.graph, strict=True):
                works[name] = asyncio.create_task(work(name, operation))
            for name, operation in zip(works, self.graph, strict=True):
                self.results[name] = await works[name]
                yield Progress(f"operation {name}: {operation.op} gives {_counted(self.results[name])}")
        finally:
            for running in works.values():
                running.cancel()
            await asyncio.gather(*works.values(), return_exceptions=True)

    async def final(self, within_s: float | None) -> Final:
        """The end: a vote over the thoughts that no operation takes; all others stand behind them."""
        ends = [t for name in ends_of(edges_of(self.graph)) for t in self.results[name]]
        ends = ends or max(self.results.values(), key=_worth) or self.cut or self.blank
        ends = ends or [Thought(nothing(self.policy))]
        final = await self._vote(ends, within_s)
        texts = {thought.text for thought in ends}
        rest = [thought for thought in self._all_written() if thought.text not in texts]
        if not rest:
            return final
        others = await self._vote(rest, within_s)
        unheard = tuple(replace(candidate, weight=0.0) for candidate in others.candidates)
        ranking = (*final.ranking, *(len(ends) + i for i in others.ranking))
        return replace(final, candidates=(*final.candidates, *unheard), ranking=ranking)

    def _all_written(self) -> list[Thought]:
        """Each with the value that is known of it."""
        values = self.evaluator.known
        written = [thought for name in names_of(self.graph) for thought in self.written.get(name, [])]
        return [replace(thought, value=values.get(thought.text, UNVALUED)) for thought in written]

    async def _vote(self, thoughts: Sequence[Thought], within_s: float | None) -> Final:
        return await vote_by_value([t.sample for t in thoughts], [t.value for t in thoughts], self.evaluator, within_s)

    async def _done(self, name: str, operation: Operation, taken: list[Thought]) -> list[Thought]:
        match operation:
            case Generate(k=k, instruction=instruction) if not edges_of(self.graph)[name]:
                return await self._write(name, [()], k, instruction)
            case Generate(k=k, instruction=instruction):
                return await self._write(name, [(thought,) for thought in taken], k, instruction or _FURTHER)
            case Aggregate(k=k, instruction=instruction):
                return await self._write(name, [tuple(taken)] if taken else [], k, instruction or _MERGE)
            case Refine(instruction=instruction):
                return await self._write(name, [(thought,) for thought in taken], 1, instruction or _REFINE)
            case Score(samples=samples):
                values = await self.evaluator.values(taken, samples)
                return [replace(thought, value=value) for thought, value in zip(taken, values, strict=True)]
            case KeepBest(n=n):
                return sorted(taken, key=lambda thought: thought.value.value, reverse=True)[:n]

    async def _write(
        self, name: str, groups: Sequence[tuple[Thought, ...]], k: int, instruction: str | None
    ) -> list[Thought]:
        """New thoughts, k of each group, all groups at once."""
        drawn: dict[int, list[Sample]] = {}

        async def think(place: int) -> None:
            prompt = self.policy.task.prompt
            if instruction:
                parents = numbers_of(thought.sample for thought in groups[place])
                prompt = self.policy.prompt_with(
                    "\n\n".join(filter(None, [_shown(groups[place]), instruction])), parents
                )
            drawn[place] = await self.policy.think(prompt, self.policy.sampling, k, name, place)

        await together([think(place) for place in range(len(groups))])
        thoughts = [Thought(sample) for place in range(len(groups)) for sample in drawn[place]]
        cut = [thought for thought in thoughts if thought.sample.finish_reason == "budget"]
        whole = [thought for thought in thoughts if thought.sample.finish_reason != "budget"]
        self.written[name] = [thought for thought in whole if thought.text.strip()]
        self.blank += [thought for thought in whole if not thought.text.strip()]
        self.cut += [thought for thought in cut if thought.text.strip()]
        return self.written[name]


def _shown(group: Sequence[Thought]) -> str:
    if len(group) == 1:
        return f"A solution:\n{group[0].text}"
    return "\n\n".join(f"Solution {i}:\n{thought.text}" for i, thought in enumerate(group, 1))


def _worth(thoughts: Sequence[Thought]) -> float:
    return max((thought.value.value for thought in thoughts), default=-1.0)


def _counted(thoughts: Sequence[Thought]) -> str:
    return f"{len(thoughts)} thought{'' if len(thoughts) == 1 else 's'}"
