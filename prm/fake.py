"""A deterministic reward model without weights, scripted by a callable, for tests, demos and load tests."""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b

from prm.aggregate import Aggregation
from prm.base import Choice, OnTokens, StepScores, check_scores, check_solutions

Scorer = Callable[[str, Sequence[str]], Sequence[float]]
"""(question, steps) → one score a step."""


class FakePRM:
    """Scores solutions by a callable.

    Args:
        score: gives a solution's step scores; by default they are drawn from `seed` and the text up to each step, so
            a longer solution keeps the scores of its beginning.
        name: what `tts.prm` calls it.
        aggregation: how its step scores become one unless a request says otherwise.
        selector: how its scores choose unless a request says otherwise.
        delay_s: seconds that each call takes.
        tokens: the tokens that each solution costs; by default the words of its question and its steps.
        seed: of the default scores.
    """

    def __init__(
        self,
        score: Scorer | None = None,
        *,
        name: str = "fake",
        aggregation: Aggregation = "last",
        selector: Choice = "best",
        delay_s: float = 0.0,
        tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.aggregation: Aggregation = aggregation
        self.selector: Choice = selector
        self.trained = True
        self._scorer = score or (lambda question, steps: _drawn(seed, question, steps))
        self._delay_s = delay_s
        self._tokens = tokens

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        check_solutions(solutions)
        await asyncio.sleep(self._delay_s)
        results = [self._scored(question, steps, on_tokens) for steps in solutions]
        check_scores(solutions, results)
        return results

    def _scored(self, question: str, steps: Sequence[str], on_tokens: OnTokens | None) -> StepScores:
        scores = tuple(self._scorer(question, steps))
        if on_tokens:
            words = sum(len(text.split()) for text in (question, *steps))
            on_tokens(words if self._tokens is None else self._tokens)
        return StepScores(scores)


def _drawn(seed: int, question: str, steps: Sequence[str]) -> list[float]:
    state = blake2b(repr((seed, question)).encode(), digest_size=8)
    scores = []
    for step in steps:
        state.update(repr(step).encode())
        scores.append(int.from_bytes(state.digest()) / (2**64 - 1))
    return scores
