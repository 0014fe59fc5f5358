"""What searches over thoughts share: chat calls whose failures are kept apart, and values of what was thought.

A thought is put to the model as text in a user turn, as the papers do it: any chat engine will do, also one that takes
no token ids and continues no assistant turn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Protocol

from pydantic import Field

from prm import Aggregation, ProcessRewardModel, aggregate, split_steps
from strategies.answers import extract
from strategies.core.account import BudgetSpent
from strategies.core.concurrency import together
from strategies.core.contracts import Candidate, Chunk, Engine, Final, Prompt, Refused, Sample, Sampling, Task, text_of
from strategies.core.parents import Steps
from strategies.sampling.draw import elect
from strategies.sampling.drawing import Drawing, succeeded
from strategies.sampling.logprob_confidence import elect_by
from strategies.sampling.streams import sub_seed

TEMPERATURE = 0.7
"""Of thoughts and evaluations where the request gives none (2305.10601, section 4)."""
VERDICTS = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
"""What a verdict counts for (2305.10601, the authors' Game of 24)."""

EvaluationCount = Annotated[int, Field(ge=1, le=100, description="Samples of each evaluation by the policy.")]
EvaluationTokens = Annotated[int, Field(ge=1, description="Tokens of one evaluation by the policy.")]

_VERDICT = re.compile(rf"\b({'|'.join(VERDICTS)})\b", re.IGNORECASE)
_VALUE = (
    "Below are a problem and a solution to it, which may be unfinished. Judge whether it leads to the right answer. "
    "Check the reasoning and the calculation in a few words, then end with a line of a single word: sure, likely or "
    "impossible."
)


@dataclass(frozen=True, slots=True)
class Value:
    """How promising a thought is."""

    value: float = 0.0
    step_scores: tuple[float, ...] | None = None
    """Those of the reward model; None where the policy itself judged."""


UNVALUED = Value()


class Solution(Protocol):
    """What is valued: a text, which may be unfinished, and the number of the sample with which it ends."""

    @property
    def text(self) -> str: ...
    @property
    def number(self) -> int | None: ...


@dataclass(slots=True)
class Policy:
    """The policy in one search. Remembers the samples that failed and whether the budget is spent."""

    task: Task
    engine: Engine
    failed: list[Sample] = field(default_factory=list)
    withheld: list[Sample] = field(default_factory=list)
    """Those that were filtered or refused."""
    spent: bool = False

    @property
    def cause(self) -> Exception | None:
        """Why the first failed sample failed."""
        return self.failed[0].chunks[-1].error if self.failed else None

    @property
    def temperature(self) -> float:
        asked = self.task.sampling.temperature
        return TEMPERATURE if asked is None else asked

    @property
    def sampling(self) -> Sampling:
        """That of what may be returned."""
        return replace(self.task.sampling, temperature=self.temperature)

    def prompt_with(self, text: str, parents: tuple[int, ...]) -> Prompt:
        """The conversation with `text`, which shows these samples, at the end of its last user turn, or as one."""
        prompt = replace(self.task.prompt, parents=parents)
        messages = prompt.messages
        if messages and messages[-1]["role"] == "user":
            *before, last = messages
            return replace(prompt, messages=(*before, {**last, "content": f"{text_of(last)}\n\n{text}"}))
        return replace(prompt, messages=(*messages, {"role": "user", "content": text}))

    async def think(self, prompt: Prompt, sampling: Sampling, n: int, *place: object) -> list[Sample]:
        """Samples of one call, n or fewer: those that failed are missing, those that the budget cut are not.

        Args:
            prompt: what is asked.
            sampling: its seed is made one for this place of the search.
            n: how many.
            place: what tells this call from the search's others.
        """
        if self.spent:
            return []
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sub_seed(sampling.seed, *place))
        drawing = Drawing(self.engine, prompt, sampling, n)
        drawn = await drawing.run()
        self.failed += [sample for sample in drawn if sample.finish_reason == "error"]
        self.withheld += [sample for sample in drawn if sample.withheld]
        self.spent = (
            self.spent or drawing.unpaid is not None or any(sample.finish_reason == "budget" for sample in drawn)
        )
        return [sample for sample in drawn if succeeded(sample)]

    async def judge(self, text: str, parents: tuple[int, ...], n: int, max_tokens: int, *place: object) -> list[str]:
        """What the policy says n times to a question of ours, which nothing of the client's sampling shapes."""
        sampling = Sampling(max_tokens=max_tokens, temperature=self.temperature, seed=self.task.sampling.seed)
        prompt = Prompt(({"role": "user", "content": text},), template=self.task.prompt.template, parents=parents)
        return [sample.text for sample in await self.think(prompt, sampling, n, *place)]


@dataclass(slots=True)
class Evaluator:
    """Values texts by a reward model, or else by the policy's own verdicts; each text once."""

    policy: Policy
    prm: ProcessRewardModel | None
    aggregation: Aggregation | None
    tokens: int
    known: dict[str, Value] = field(default_factory=dict)

    async def values(self, solutions: Sequence[Solution], samples: int) -> list[Value]:
        """One value a solution; 0 where there was no budget for one.

        Raises:
            PRMError: the reward model failed.
        """
        new: dict[str, Solution] = {}
        for solution in solutions:
            if solution.text not in self.known:
                new.setdefault(solution.text, solution)
        if new and not self.policy.spent:
            if self.prm:
                await self._score(list(new.values()), self.prm)
            else:
                await together([self._judge(solution, samples) for solution in new.values()])
        return [self.known.get(solution.text, UNVALUED) for solution in solutions]

    async def _score(self, solutions: Sequence[Solution], prm: ProcessRewardModel) -> None:
        steps = [Steps(split_steps(solution.text), solution.number) for solution in solutions]
        try:
            results = await prm.score(self.policy.task.question, steps)
        except BudgetSpent:
            self.policy.spent = True
            return
        how = self.aggregation or prm.aggregation
        for solution, result in zip(solutions, results, strict=True):
            self.known[solution.text] = (
                Value(aggregate(result.scores, how), result.scores) if result.scores else UNVALUED
            )

    async def _judge(self, solution: Solution, samples: int) -> None:
        text, parents = solution.text, () if solution.number is None else (solution.number,)
        question = f"{_VALUE}\n\nProblem:\n{self.policy.task.question}\n\nSolution:\n{text}"
        replies = await self.policy.judge(question, parents, samples, self.tokens, "value", text)
        if replies:
            self.known[text] = Value(verdict_value(replies))


def verdict_value(replies: Sequence[str]) -> float:
    """The mean of what the verdicts count for; what names none in its last line counts 0."""
    last_lines = (text.strip().rpartition("\n")[2] for text in replies)
    found = (_VERDICT.findall(line) for line in last_lines)
    return sum(VERDICTS[words[-1].lower()] for words in found if words) / len(replies)


async def vote_by_value(
    samples: Sequence[Sample], values: Sequence[Value], evaluator: Evaluator, within_s: float | None
) -> Final:
    """The end of a search: the answers vote, each solution with its value, or as one where none has any.

    The policy's own values are no scores, so only the reward model's stand in the candidates. For `within_s`, see
    `elect`.
    """
    candidates = [Candidate(s, extract(s.text, truncated=not s.finished)) for s in samples]
    if not any(value.value for value in values):
        return await elect(candidates, "majority", within_s)
    if not evaluator.prm:
        return await elect_by([value.value for value in values], candidates, within_s=within_s)
    scored = [
        replace(c, step_scores=v.step_scores, score=None if v.step_scores is None else v.value)
        for c, v in zip(candidates, values, strict=True)
    ]
    return await elect(scored, "weighted", within_s)


def with_failed(final: Final, policy: Policy) -> Final:
    """The same end, with the calls that failed shown behind all others."""
    failed = tuple(Candidate(sample) for sample in policy.failed)
    known = len(final.candidates)
    ranking = (*final.ranking, *range(known, known + len(failed)))
    return replace(final, candidates=(*final.candidates, *failed), ranking=ranking)


def nothing(policy: Policy) -> Sample:
    """A sample that was filtered or refused where there is one, else an empty one that the budget did not let begin.

    Raises:
        Exception: the first cause, if it is not the budget that left nothing.
    """
    if policy.cause and not policy.spent:
        raise policy.cause
    if policy.withheld:
        return policy.withheld[0]
    return Sample([Chunk(0, finish_reason="budget")])


def refuse_unthinkable(task: Task, evaluator: Literal["value", "vote", "prm"] | None, loaded: bool) -> None:
    """Raises Refused for what a search over thoughts cannot honour."""
    if task.sampling.structured:
        raise Refused("thoughts are not answers: this strategy cannot constrain its output", "response_format")
    if task.prompt.template.get("continue_final_message"):
        raise Refused("this strategy asks in user turns and continues no message", "continue_final_message")
    if evaluator == "prm" and not loaded:
        raise Refused(
            "the evaluator 'prm' needs a reward model and none is loaded; start the server with --prm", "tts.evaluator"
        )
