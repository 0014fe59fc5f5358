"""The toy world's reward model: as good as it is told to be, with noise and blind spots that are known."""

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from statistics import NormalDist

from bench.simulation.toy_world import STEP
from prm import Aggregation, Choice, OnTokens, StepScores, check_solutions


class ToyPRM:
    """A reward model of known quality.

    A step's score is 0.5 ± quality / 2 as the path is right or wrong after it, plus Gaussian noise of deviation
    `noise` x (1 - quality), clipped to [0, 1]. The noise is drawn from the seed and the text up to the step, so a
    solution keeps its scores as it grows.

    It can have blind spots for a search to exploit, unless it is useless or perfect: on a share of the questions, a
    share of the errors scores 1, and so does what follows from them.

    Args:
        quality: from 0, pure noise, to 1, perfect.
        noise: deviation at quality 0.
        blind_questions: share of the questions that have blind spots.
        blind_errors: share of the errors there that it takes for the best it has seen.
        seed: of the noise and the blind spots.
    """

    name = "toy"
    aggregation: Aggregation = "last"
    selector: Choice = "weighted"
    trained = True

    def __init__(
        self,
        quality: float,
        *,
        noise: float = 0.25,
        blind_questions: float = 0.0,
        blind_errors: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not 0 <= quality <= 1 or noise <= 0:
            raise ValueError(f"quality is in [0, 1] and noise above 0, got {quality} and {noise}")
        self.quality = quality
        self._deviation = noise * (1 - quality)
        self._blind_questions = blind_questions if 0 < quality < 1 else 0.0
        self._blind_errors = blind_errors
        self._seed = seed

    @property
    def auc(self) -> float:
        """Chance that a right path scores above a wrong one, clipping and blind spots aside."""
        return NormalDist().cdf(self.quality / self._deviation / math.sqrt(2)) if self._deviation else 1.0

    def distribution(self, right: bool) -> NormalDist:
        """Of a step's score before it is clipped, blind spots aside."""
        return NormalDist(0.5 + (0.5 if right else -0.5) * self.quality, self._deviation)

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        check_solutions(solutions)
        if on_tokens:
            on_tokens(sum(len(text.split()) for steps in solutions for text in (question, *steps)))
        return [StepScores(tuple(self._scores(question, steps))) for steps in solutions]

    def _scores(self, question: str, steps: Sequence[str]) -> Iterator[float]:
        prefix = blake2b(repr((self._seed, question)).encode(), digest_size=16)
        blind = self._blind_questions > _uniforms(prefix.digest())[0]
        right, unseen = True, False
        for step in steps:
            prefix.update(repr(step).encode())
            rank, luck = _uniforms(prefix.digest())
            label = STEP.search(step)
            before, right = right, label[2] == "right" if label else right
            if before and not right:
                unseen = blind and luck < self._blind_errors
            yield 1.0 if unseen and not right else self._blurred(right, rank)

    def _blurred(self, right: bool, rank: float) -> float:
        mean = 0.5 + (0.5 if right else -0.5) * self.quality
        return min(1.0, max(0.0, mean + self._deviation * NormalDist().inv_cdf(rank)))


def _uniforms(digest: bytes) -> tuple[float, float]:
    """Two numbers in (0, 1), of 52 bits each, so that none is rounded to 1."""
    first, second = ((int.from_bytes(half) >> 12) + 0.5 for half in (digest[:8], digest[8:]))
    return first / 2**52, second / 2**52
