"""What all step searches share: expand a trajectory by steps, score them, gather the finished ones.

A strategy supplies the rule that keeps. Branches do not wait for one another here: each parent's children are scored
as soon as they are generated, while others still generate. A trajectory is kept as token ids, so nothing is rendered
or tokenised again between steps and the engine's prefix cache hits.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field

from prm import SEPARATOR, Aggregation, ProcessRewardModel, StepScores
from prm.steps import SEPARATORS
from strategies.answers import extract
from strategies.core.account import Account, BudgetSpent
from strategies.core.concurrency import telling
from strategies.core.contracts import Candidate, Chunk, Engine, Final, Progress, Sample, Sampling, Selector, Task
from strategies.core.deadline import Late
from strategies.core.parents import numbers_of
from strategies.core.widening import Finishing
from strategies.sampling.draw import elect, with_temperature
from strategies.sampling.drawing import Drawing, succeeded
from strategies.search.stop_strings import Border, Stop, first_stop, length_of, reach, stopped_at
from strategies.search.trajectory import Trajectory, distinct, failed

MaxSteps = Annotated[int, Field(ge=1, le=1000, description="Steps of one solution.")]
StepTokens = Annotated[
    int | None,
    Field(ge=1, description="Tokens of one step; one that reaches it is cut there and goes on as the next. Null: all."),
]
Separator = Annotated[str, Field(min_length=1, max_length=32, description="What ends a step.")]


@dataclass(slots=True)
class StepSearch:
    """One search under way.

    `leaves` holds what has ended, `cut` what the budget cut off, `failed` each failed branch with its
    error at its end, `withheld` branches that were filtered or refused where others went on.
    """

    task: Task
    engine: Engine
    prm: ProcessRewardModel | None
    """None: steps get no scores."""
    aggregation: Aggregation
    separator: str = SEPARATOR
    step_tokens: int | None = None
    account: Account = field(default_factory=Account)
    """The request's, whose deadline the search has to meet."""
    leaves: list[Trajectory] = field(default_factory=list)
    cut: list[Trajectory] = field(default_factory=list)
    failed: list[Trajectory] = field(default_factory=list)
    withheld: list[Trajectory] = field(default_factory=list)
    spent: bool = False
    """Whether the budget is: no more can be grown."""
    finishing: Finishing = field(init=False)
    _told: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.finishing = Finishing(self.account)

    @property
    def cause(self) -> Exception | None:
        """Why the first failed branch failed."""
        return next((t.samples[-1].chunks[-1].error for t in self.failed), None)

    async def root(self) -> Trajectory:
        return Trajectory(await self.engine.encode(self.task.prompt))

    def score(self, trajectory: Trajectory) -> float:
        return trajectory.score(self.aggregation)

    def step_score(self, trajectory: Trajectory) -> float:
        """The last step's score, by which a search is steered that shares its width or its particles out anew."""
        return trajectory.scores[-1] if trajectory.scores else 0.0

    async def grow(
        self, wanted: Sequence[tuple[Trajectory, int]], *, lookahead: int = 0, unique: bool = True, place: int = 0
    ) -> list[list[Trajectory]]:
        """`try_growing` of all that is left to grow.

        Raises:
            Exception: the first cause, if every branch of the search has failed.
        """
        grown = await self.try_growing(wanted, lookahead=lookahead, unique=unique, place=place)
        if self.cause and not self.spent and not self.leaves and not any(grown):
            raise self.cause
        return grown

    async def try_growing(
        self, wanted: Sequence[tuple[Trajectory, int]], *, lookahead: int = 0, unique: bool = True, place: int = 0
    ) -> list[list[Trajectory]]:
        """The scored children of each parent, ended ones among them: as many as wanted, or fewer.

        Args:
            wanted: parents with the number of children to sample of each, all in one engine call a parent.
            lookahead: greedy steps to roll each child out before it is scored; only their score is kept (Snell et
                al. 2408.03314, section 5.2).
            place: of the first parent among those of its depth, for seeds that differ.
            unique: whether children of one parent whose step reads the same count as one.
        """
        if self.spent:
            return [[] for _ in wanted]
        # Siblings stand beside one another in the queue, so what they share is still in the prefix cache.
        order = sorted(range(len(wanted)), key=lambda i: wanted[i][0].token_ids)
        tasks: dict[int, asyncio.Task[list[Trajectory]]] = {}
        with self.finishing.round():
            async with asyncio.TaskGroup() as group:
                for i in order:
                    parent, n = wanted[i]
                    tasks[i] = group.create_task(self._children(parent, n, place + i, lookahead, unique))
        return [tasks[i].result() for i in range(len(wanted))]

    def is_late(self, best: Sequence[Trajectory]) -> bool:
        """Whether the best branches must be finished now, so that they have ended at the deadline."""
        return not self.spent and self.finishing.due([trajectory.completion_tokens for trajectory in best])

    async def finish(self, wanted: Sequence[tuple[Trajectory, int]], *, place: int = 0) -> Progress:
        """Generates branches to their ends, as many of each as wanted; they keep the scores that they have."""
        left = self.account.seconds_left or 0.0
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._children(parent, n, place + i, 0, unique=False, whole=True))
                for i, (parent, n) in enumerate(wanted)
            ]
        self.retire([child for task in tasks for child in task.result()])
        count = sum(n for _, n in wanted)
        return Progress(f"{left:.2f} s are left: {count} branches are finished, without widening and without scores")

    def retire(self, children: Sequence[Trajectory]) -> list[Trajectory]:
        """Those that can grow; the ended ones become leaves."""
        ended = [child for child in children if child.ended]
        self.leaves += ended
        for child in ended:
            self.finishing.ended(child.completion_tokens)
        return [child for child in children if not child.ended]

    def running(self, work: Coroutine[Any, Any, None]) -> AsyncGenerator[Progress, None]:
        """Runs `work` and yields what it `tell`s meanwhile; closing it cancels the work."""
        return telling(work, self._told)

    def tell(self, line: str) -> None:
        self._told.put_nowait(line)

    async def _children(
        self, parent: Trajectory, n: int, place: int, lookahead: int, unique: bool, *, whole: bool = False
    ) -> list[Trajectory]:
        children: list[Trajectory] = []
        try:
            children = await self.expand(parent, n, place, whole=whole)
            if whole:
                return children
            if unique:
                children = distinct(children)
            return await self._scored_in_time(children, lookahead)
        except BudgetSpent:
            self.spent = True
            self.cut += children or [parent]
        except Exception as error:
            self.failed += [failed(t, error) for t in children or [parent]]
        return []

    async def _scored_in_time(self, children: list[Trajectory], lookahead: int) -> list[Trajectory]:
        """As `scored`, or as they are where they must be finished before that is done."""
        growing = [child.completion_tokens for child in children if not child.ended]
        if growing and (self.finishing.begun or self.finishing.spare_s(growing) == 0):
            self.finishing.begin()
            return children
        try:
            return await self.finishing.in_time(self.scored(children, lookahead), growing)
        except Late:
            self.finishing.begin()
            return children

    async def expand(
        self, parent: Trajectory, n: int, place: int = 0, *, greedy: bool = False, whole: bool = False
    ) -> list[Trajectory]:
        """Samples n children of one more step each, or of all that is left, not scored; what was cut off goes to `cut`.

        Raises:
            BudgetSpent: nothing more can be bought.
        """
        prompt = replace(self.task.prompt, token_ids=parent.token_ids, parents=numbers_of(parent.samples[-1:]))
        stops = () if self._least(parent) else self.task.sampling.stop
        border = Border(parent.tail(reach(stops)), stops)

        def all_ended(chunk: Chunk) -> bool:
            return border.ends(chunk) and len(border.ended) == n

        drawing = Drawing(self.engine, prompt, self._sampling(parent, place, greedy, whole), n)
        samples = await drawing.run(all_ended if stops else None)
        if drawing.unpaid:
            raise drawing.unpaid
        drawing.raise_if_lost()
        children = [self._child(parent, sample) for sample in samples]
        sound: list[Trajectory] = []
        withheld: list[Trajectory] = []
        for child in children:
            end = child.samples[-1].chunks[-1]
            if end.error:
                self.failed.append(child)
            elif end.finish_reason == "budget":
                self.cut.append(child)
                self.spent = True
            elif end.finish_reason != "error":
                (withheld if child.samples[-1].withheld else sound).append(child)
        if not sound:
            return withheld
        self.withheld += withheld
        return sound

    def _sampling(self, parent: Trajectory, place: int, greedy: bool, whole: bool) -> Sampling:
        sampling = self.task.sampling if greedy else with_temperature(self.task.sampling)
        limits = [None if whole else self.step_tokens, self._room(parent)]
        seed = sampling.seed
        if seed is not None:
            # Each expansion has its own stream of randomness, the same in every run.
            seed = random.Random(f"{seed}|{len(parent.samples)}|{place}").getrandbits(31)
        most = min((limit for limit in limits if limit is not None), default=None)
        least = self._least(parent)
        return replace(
            sampling,
            stop=sampling.stop if whole else tuple(dict.fromkeys((*self._separators, *sampling.stop))),
            include_stop=True,
            max_tokens=most,
            min_tokens=(least if most is None else min(least, most)) or None,
            temperature=0.0 if greedy else sampling.temperature,
            seed=seed,
        )

    @property
    def _separators(self) -> tuple[str, ...]:
        return SEPARATORS if self.separator == SEPARATOR else (self.separator,)

    def _least(self, trajectory: Trajectory) -> int:
        """Tokens that the answer must still grow by."""
        return max(0, (self.task.sampling.min_tokens or 0) - trajectory.completion_tokens)

    def _room(self, trajectory: Trajectory) -> int | None:
        """Tokens that the answer may still grow by; None is no limit."""
        limit = self.task.sampling.max_tokens
        return None if limit is None else max(0, limit - trajectory.completion_tokens)

    def _child(self, parent: Trajectory, sample: Sample) -> Trajectory:
        end = sample.chunks[-1]
        if found := self._stopped(parent, sample):
            dropped = len(sample.text) - found.start
            child = parent.followed_by(stopped_at(sample, found.text), ended=True, dropped=dropped)
            return replace(child, scores=parent.scores[: len(child.steps)])
        ended = end.finish_reason == "eos" or (end.finish_reason == "stop" and end.stop in self.task.sampling.stop)
        ended = ended or sample.withheld
        child = parent.followed_by(sample, ended=ended)
        if ended or self._can_go_on(child):
            return child
        # Its end is the answer's own limit, also where a step happens to end there.
        cut = Sample([*sample.chunks, Chunk(end.index, finish_reason="length")])
        return parent.followed_by(cut, ended=True)

    def _stopped(self, parent: Trajectory, sample: Sample) -> Stop | None:
        """The client's stop string that ends in a sample, by its place from the sample's beginning.

        It may begin in the steps before; an engine that reports the separator may have passed it over, too.
        """
        stops = self.task.sampling.stop
        if not stops:
            return None
        before = parent.tail(reach(stops))
        begin = len(before) + length_of(sample, self._least(parent))
        found = first_stop(before + sample.text, stops, begin)
        return found and Stop(found.end - len(before), found.start - len(before), found.text)

    def _can_go_on(self, trajectory: Trajectory) -> bool:
        """Whether a step that reached a limit reached only its own."""
        room, context = self._room(trajectory), self.engine.max_model_len
        if room == 0 or (context is not None and len(trajectory.token_ids) >= context):
            return False
        return trajectory.samples[-1].finish_reason != "length" or self.step_tokens is not None

    async def scored(self, children: Sequence[Trajectory], lookahead: int = 0) -> list[Trajectory]:
        """The children with a score for each of their steps, in one call.

        Those that the reward model cannot score, because they are longer than its context, have none and go on, and so
        does all that grows from them. One whose lookahead is too long is scored without it.

        Raises:
            BudgetSpent: nothing more can be bought.
        """
        if self.prm is None:
            return list(children)
        ahead = list(await asyncio.gather(*(self._rolled(c, lookahead) for c in children))) if lookahead else children
        solutions = [rolled.steps for rolled in ahead if rolled.steps and rolled.unscorable is None]
        results = iter(await self.prm.score(self.task.question, solutions) if solutions else [])
        scored = []
        for child, rolled in zip(children, ahead, strict=True):
            result = next(results) if rolled.steps and rolled.unscorable is None else StepScores(())
            if result.fault is None:
                scored.append(replace(child, scores=_scores_of(child, result.scores) if result.scores else ()))
            elif rolled is child:
                scored.append(replace(child, scores=(), unscorable=result.fault))
            else:
                scored += await self.scored([child])
        return scored

    async def _rolled(self, child: Trajectory, steps: int) -> Trajectory:
        for _ in range(steps):
            if child.ended:
                break
            rolled = await self.expand(child, 1, greedy=True)
            if not rolled:
                break
            child = rolled[0]
        return child

    async def final(
        self,
        selector: Selector,
        live: Sequence[Trajectory] = (),
        within_s: float | None = None,
        *,
        weight: Callable[[float], float] | None = None,
    ) -> Final:
        """The end: a vote over the leaves, or over what was still growing; see `elect` for `within_s`.

        Args:
            selector: how one of them is chosen.
            live: what was still growing.
            within_s: seconds for comparing answers.
            weight: what a candidate's score counts for in a weighted vote; None: itself.

        Raises:
            Exception: the first cause, if every branch has failed.
        """
        ended = [leaf for leaf in self.leaves if leaf.samples]
        # What was to be finished is cut further on than where it grew from.
        growing = () if self.finishing.begun and self.cut else live
        pool = ended or [t for t in (*growing, *self.cut) if t.samples]
        if not pool and self.cause and not self.spent:
            raise self.cause
        if not pool:
            return await elect([Candidate.empty()], selector)
        # Failed branches are shown and have no vote.
        everyone = (*pool, *self.withheld, *self.failed)
        candidates = [self._candidate(trajectory) for trajectory in everyone]
        if weight is None or selector != "weighted":
            return await elect(candidates, selector, within_s)
        weighed = [replace(c, score=None if c.score is None else weight(c.score)) for c in candidates]
        final = await elect(weighed, selector, within_s)
        scored = zip(final.candidates, candidates, strict=True)
        return replace(final, candidates=tuple(replace(c, score=own.score) for c, own in scored))

    def _candidate(self, trajectory: Trajectory) -> Candidate:
        sample = trajectory.sample
        if not trajectory.ended and sample.finish_reason in ("stop", "length"):
            # It stands at a step's end, which is not an end of its own.
            sample = Sample([*sample.chunks, Chunk(0, finish_reason="budget" if self.spent else "length")])
        if not succeeded(sample):
            return Candidate(sample)
        scores = trajectory.scores
        return Candidate(
            sample,
            extract(sample.text, truncated=not sample.finished, opening=self.task.opening),
            scores or None,
            self.score(trajectory) if scores else None,
            unscorable=trajectory.unscorable,
        )


def _scores_of(child: Trajectory, scores: Sequence[float]) -> tuple[float, ...]:
    """One score a step of the child; the last one is that of the end of its lookahead."""
    own = len(child.steps)
    before = scores[: max(0, own - 1)]
    # A stop string across the end of the child makes its lookahead the shorter one.
    return (*before, *(scores[-1],) * (own - len(before)))
