"""What was drawn of one question: samples, what they answer, what they cost and what they are worth."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from prm import Aggregation, ProcessRewardModel, split_steps
from strategies.allocation.arms import Drawn
from strategies.allocation.difficulty import Attempt, Difficulty, Estimate, attempts_of, estimate
from strategies.allocation.prior_table import PilotCost
from strategies.answers import canonical
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Candidate, Chunk, Engine, Final, Progress, Sample, Selector, Task
from strategies.sampling.draw import candidates_of, draw, elect, scored
from strategies.sampling.logprob_confidence import only_asked
from strategies.sampling.streams import sub_seed


@dataclass(slots=True)
class Evidence:
    """Grows by draws, of which the first is the pilot.

    Args:
        logprobs: whether the samples' logprobs are needed, also where the task asks for none.
    """

    task: Task
    engine: Engine
    account: Account
    logprobs: bool = False
    candidates: list[Candidate] = field(default_factory=list)
    pilot: PilotCost = field(default_factory=PilotCost)
    short: bool = False
    """Whether a draw gave fewer samples than it was asked for: there is no more to be had."""
    _keys: list[str | None] = field(default_factory=list)
    _size: int | None = None
    """Of the pilot."""
    _draws: int = 0

    @property
    def attempts(self) -> list[Attempt]:
        """Of the samples that came to something."""
        return attempts_of(self.candidates, self._keys)

    @property
    def pilot_attempts(self) -> list[Attempt]:
        """Those of the pilot."""
        n = self.pilot.samples
        return attempts_of(self.candidates[:n], self._keys[:n])

    @property
    def votes(self) -> list[str | None]:
        """Their answers, canonical."""
        return [attempt.key for attempt in self.attempts]

    @property
    def is_mute(self) -> bool:
        """Whether no sample gives an answer."""
        return all(vote is None for vote in self.votes)

    @property
    def is_scored(self) -> bool:
        return any(candidate.score is not None for candidate in self.candidates)

    @property
    def mean_score(self) -> float | None:
        """Of the samples that were scored; None without any."""
        scores = [attempt.score for attempt in self.attempts if attempt.score is not None]
        return sum(scores) / len(scores) if scores else None

    @property
    def drawn(self) -> Drawn:
        pilot = self.pilot
        wall_s = pilot.wall_s + pilot.prm_wall_s
        tokens = sum(c.sample.completion_tokens for c in self.candidates)
        return Drawn(pilot.samples, pilot.tokens, pilot.prm_tokens, wall_s, len(self.attempts), tokens)

    @property
    def samples(self) -> list[Sample]:
        """All samples, with the logprobs that the task requests."""
        return [self._asked(candidate.sample) for candidate in self.candidates]

    def estimate(self, model: Difficulty | None, attempts: Sequence[Attempt] | None = None) -> Estimate:
        """How hard the question is by these attempts, or by all; see `difficulty.estimate`."""
        return estimate(self.attempts if attempts is None else attempts, model, self._size)

    async def draw(self, n: int) -> AsyncGenerator[Progress, None]:
        """Draws n samples in one call; those of another draw than the first may fail.

        Raises:
            Exception: the first draw came to nothing.
        """
        self._size = self._size or n
        samples: list[Sample] = []
        began = self.account.wall_s
        try:
            async with aclosing(draw(self._seeded(), self.engine, n, samples)) as progress:
                async for line in progress:
                    yield line
        except Exception as error:
            if not self._draws:
                raise
            self.fail(error)
        self.short = self.short or len(samples) < n or self.account.spent() is not None
        if samples or not self.candidates:
            await self._add(candidates_of(samples))
        if not self._draws:
            self.pilot = self._cost(self.account.wall_s - began)
        self._draws += 1

    def fail(self, error: Exception) -> None:
        """Notes a branch that failed: there is no more to be had."""
        self.candidates.append(Candidate(Sample([Chunk(0, finish_reason="error", error=error)])))
        self._keys.append(None)
        self.short = True

    async def score(self, prm: ProcessRewardModel, aggregation: Aggregation | None) -> None:
        """Scores what was drawn, and takes it for the pilot's cost; nothing where there is no budget for it."""
        before, began = self.account.usage.prm_tokens, self.account.wall_s
        try:
            self.candidates = await scored(self.task, self.candidates, prm, aggregation)
        except BudgetSpent:
            return
        tokens, seconds = self.account.usage.prm_tokens - before, self.account.wall_s - began
        self.pilot = replace(self.pilot, prm_tokens=tokens, prm_wall_s=seconds)

    async def elect(self, selector: Selector) -> Final:
        """The vote over what was drawn."""
        return await elect(self.as_requested(self.candidates), selector, self.account.seconds_left)

    def as_requested(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with the logprobs that the task requests."""
        return [replace(candidate, sample=self._asked(candidate.sample)) for candidate in candidates]

    def _seeded(self) -> Task:
        sampling = self.task.sampling
        if self.logprobs:
            sampling = replace(sampling, logprobs=sampling.logprobs or 0)
        if self._draws and sampling.seed is not None:
            sampling = replace(sampling, seed=sub_seed(sampling.seed, "wave", self._draws))
        return replace(self.task, sampling=sampling)

    async def _add(self, new: Sequence[Candidate]) -> None:
        answers = [candidate.answer for candidate in new if candidate.answer is not None]
        keys = iter(await canonical(answers, self.account.seconds_left))
        self.candidates += new
        self._keys += [None if candidate.answer is None else next(keys) for candidate in new]

    def _cost(self, wall_s: float) -> PilotCost:
        steps = [len(split_steps(c.text)) for c in self.candidates]
        tokens = sum(c.sample.completion_tokens for c in self.candidates)
        return PilotCost(len(steps), tokens, wall_s, max(1.0, sum(steps) / len(steps)))

    def _asked(self, sample: Sample) -> Sample:
        if not self.logprobs:
            return sample
        return Sample([only_asked(chunk, self.task.sampling.logprobs) for chunk in sample.chunks])
