"""The contract of a process reward model (PRM)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from prm.aggregate import Aggregation

Choice = Literal["best", "weighted"]
"""How scores choose among solutions: the highest one, or the answer with the highest sum of them."""

OnTokens = Callable[[int], None]
"""Receives the number of tokens that a model has just computed, read or generated; tokens from a cache do not count."""


class PRMError(Exception):
    """The reward model could not score: it failed, or returned something that is not a score."""


@dataclass(frozen=True, slots=True)
class StepScores:
    """The scores of one solution."""

    scores: tuple[float, ...]
    """One score in [0, 1] for each step: P(the solution is right so far)."""
    fault: str | None = None
    """Why the solution has no scores; a search goes on with its other solutions."""

    def __post_init__(self) -> None:
        bad = [s for s in self.scores if not 0.0 <= s <= 1.0]
        if bad:
            raise PRMError(f"a step score is a number in [0, 1], got {bad[0]!r}")


class PRMInputError(PRMError):
    """The text cannot be scored as it is; `param` names the field and the message says what is allowed.

    Args:
        faults: why each solution that cannot be scored cannot, by its place in the call; empty where the model does
            not say which solutions these are.
        scored: the results of the other solutions, by their places, so that nobody pays for them again.
    """

    def __init__(
        self,
        message: str,
        param: str = "steps",
        *,
        faults: Mapping[int, str] | None = None,
        scored: Mapping[int, StepScores] | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.faults = faults or {}
        self.scored = scored or {}


@runtime_checkable
class ProcessRewardModel(Protocol):
    """Scores solutions step by step."""

    name: str
    """What `tts.prm` calls it."""
    aggregation: Aggregation
    """How this family's step scores become one score unless a request says otherwise."""
    selector: Choice
    """How its scores choose unless a request says otherwise: `best` rests on the one solution that it overrates most,
    so `weighted` is for all whose scores are probabilities (2408.03314, 2501.07301)."""
    trained: bool
    """Whether it has learned from labels to tell right from wrong. One that has not leads no search by itself."""

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        """Scores each solution (a list of steps) of `question`.

        The order is kept and each result has exactly one score a step. Cancelling the call stops its work.
        The numbers that `on_tokens` receives add up to what the call has computed, also when it is cancelled or fails.

        Raises:
            PRMInputError: a solution has no steps, an empty step, or is longer than the model's context.
            PRMError: the model failed.
        """
        ...


def check_solutions(solutions: Sequence[Sequence[str]]) -> None:
    """Raises PRMInputError unless every solution has steps and no step is blank."""
    faults = {}
    for i, steps in enumerate(solutions):
        blank = next((k for k, step in enumerate(steps) if not step.strip()), None)
        if not steps:
            faults[i] = f"solution {i} has no steps; one needs at least one"
        elif blank is not None:
            faults[i] = f"step {blank} of solution {i} is empty; a step is a text that is not blank"
    refuse(faults)


def refuse(faults: Mapping[int, str], scored: Mapping[int, StepScores] | None = None) -> None:
    """Raises PRMInputError with all faults, and the first one as its message, if there are any."""
    if faults:
        raise PRMInputError(faults[min(faults)], faults=faults, scored=scored)


def check_scores(solutions: Sequence[Sequence[str]], results: Sequence[StepScores]) -> None:
    """Raises PRMError unless there is one result a solution and one score a step."""
    got = [len(result.scores) for result in results]
    want = [len(steps) for steps in solutions]
    if got != want:
        raise PRMError(f"the reward model returned {got} scores for solutions of {want} steps")
