"""Chains of revisions: each attempt has the last ones and a review in sight; votes within and across chains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from prm import Aggregation, ProcessRewardModel
from strategies.answers import canonical
from strategies.core.account import Account, BudgetSpent
from strategies.core.concurrency import together
from strategies.core.contracts import Candidate, Engine, Final, Message, Sample, Selector, Task
from strategies.core.parents import numbers_of
from strategies.sampling.dialogue import aside, ask, assistant_turn, followed_by, seeded, user_turn
from strategies.sampling.draw import candidates_of, elect, scored
from strategies.sampling.drawing import succeeded

CONTEXT = 4
"""Attempts of its chain that a revision sees (2408.03314, section 6.1)."""
ALL_RIGHT = "NOTHING TO CHANGE"
FEEDBACK = (
    "Review your last solution. Go through it step by step, redo each calculation, and name every error with the "
    f"reason why it is one. Do not write a new solution. If you find no error at all, reply only: {ALL_RIGHT}"
)
REFINE = (
    "Now write a complete new solution to the original problem that repairs what the review found. Work through every "
    "step and state the final answer in the form that was asked for."
)

Accept = Literal["score", "majority", "last"]
"""Which revisions are kept, and which attempt of a chain counts."""


@dataclass(slots=True)
class Chain:
    """One line of revisions."""

    attempts: list[int]
    """Indexes of the candidates."""
    kept: list[int]
    grows: bool = True
    """Whether it can be revised: neither failed nor found without error."""
    draft: Sample | None = None
    """The revision that waits to be judged."""


@dataclass(slots=True)
class Revisions:
    """One search under way."""

    task: Task
    engine: Engine
    prm: ProcessRewardModel | None
    aggregation: Aggregation | None
    feedback_tokens: int
    account: Account
    candidates: list[Candidate] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    spent: bool = False

    async def start(self, samples: Sequence[Sample]) -> None:
        self.candidates = await self._judged(candidates_of(samples))
        self.chains = [Chain([i], [i], c.sample.finished) for i, c in enumerate(self.candidates)]

    async def revise(self, chains: Sequence[Chain], revision: int) -> int:
        """Revises each chain once and returns how many of the revisions are kept; all are scored in one call."""
        await together([self._draft(chain, revision) for chain in chains])
        drafted = [chain for chain in chains if chain.draft]
        drafts = await self._judged(candidates_of([c.draft for c in drafted if c.draft])) if drafted else []
        kept = 0
        for chain, draft in zip(drafted, drafts, strict=True):
            index = len(self.candidates)
            self.candidates.append(draft)
            chain.attempts.append(index)
            if self._better(draft, self.candidates[chain.kept[-1]]):
                chain.kept.append(index)
                kept += 1
        return kept

    async def _draft(self, chain: Chain, revision: int) -> None:
        """Feedback, then a revision; a chain that fails stops at what it has."""
        first, sampling = chain.attempts[0], self.task.sampling
        chain.draft = None
        turns, parents = self._turns(chain), numbers_of(self.candidates[i].sample for i in chain.kept[-CONTEXT:])
        review = await ask(
            self.engine,
            followed_by(self.task, [*turns, user_turn(FEEDBACK)], parents),
            seeded(aside(sampling, self.feedback_tokens), "review", first, revision),
        )
        self._check(chain, review)
        if not chain.grows or self.spent or ALL_RIGHT in review.text.rpartition("</think>")[2]:
            chain.grows = False
            return
        chain.draft = await ask(
            self.engine,
            followed_by(
                self.task,
                [*turns, user_turn(FEEDBACK), assistant_turn(review.text), user_turn(REFINE)],
                (*parents, *numbers_of([review])),
            ),
            seeded(sampling, "revision", first, revision),
            index=first,
        )
        self._check(chain, chain.draft)

    def _turns(self, chain: Chain) -> list[Message]:
        """The last attempts that were kept, as turns."""
        turns: list[Message] = []
        for index in chain.kept[-CONTEXT:]:
            turns += [user_turn(REFINE)] if turns else []
            turns.append(assistant_turn(self.candidates[index].text))
        return turns

    def _check(self, chain: Chain, sample: Sample) -> None:
        chain.grows = succeeded(sample)
        self.spent = self.spent or sample.finish_reason == "budget"

    async def _judged(self, candidates: list[Candidate]) -> list[Candidate]:
        if self.prm is None:
            return candidates
        try:
            return await scored(self.task, candidates, self.prm, self.aggregation)
        except BudgetSpent:
            # What cannot be judged is not kept, so no further revision is of use.
            self.spent = True
            return candidates

    def _better(self, draft: Candidate, kept: Candidate) -> bool:
        if not draft.sample.finished:
            return False
        if self.prm is None:
            return True
        return draft.score is not None and (kept.score is None or draft.score > kept.score)

    async def final(self, accept: Accept | None) -> Final:
        """The end: one attempt a chain, by a vote within it, and a vote over those (2408.03314, section 6.2)."""
        selector: Selector = "weighted" if self.prm else "majority"
        within_vote = self.prm or accept == "majority"
        chosen = [await self._chosen(chain, selector) if within_vote else chain.kept[-1] for chain in self.chains]
        if not chosen:
            return await elect(self.candidates, selector, self.account.seconds_left)
        across = await elect([self.candidates[i] for i in chosen], selector, self.account.seconds_left)
        weights = {chosen[i]: candidate.weight for i, candidate in enumerate(across.candidates)}
        everyone = (await elect(self.candidates, selector, self.account.seconds_left)).ranking
        order = [chosen[i] for i in across.ranking]
        order += [i for i in everyone if i not in weights]
        weighed = tuple(replace(c, weight=weights.get(i, 0.0)) for i, c in enumerate(self.candidates))
        return replace(
            across, candidates=weighed, ranking=await distinct_first(weighed, order, self.account.seconds_left)
        )

    async def _chosen(self, chain: Chain, selector: Selector) -> int:
        within = await elect([self.candidates[i] for i in chain.attempts], selector, self.account.seconds_left)
        return chain.attempts[within.ranking[0]]


async def distinct_first(
    candidates: Sequence[Candidate], order: Sequence[int], within_s: float | None
) -> tuple[int, ...]:
    """The order with equal answers behind distinct ones, then those without any, then failed ones; the first stays."""
    answers = [candidates[i].answer for i in order]
    keys = iter(await canonical([answer for answer in answers if answer is not None], within_s))
    seen: set[str] = set()
    places: dict[int, int] = {}
    for i, answer in zip(order, answers, strict=True):
        key = None if answer is None else next(keys)
        failed = 3 if not succeeded(candidates[i].sample) else 2
        places[i] = failed if key is None else int(key in seen)
        if key is not None:
            seen.add(key)
    return (order[0], *sorted(order[1:], key=places.__getitem__))
