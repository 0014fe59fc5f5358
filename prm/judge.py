"""The policy itself as verifier: asked after each step whether the solution is right so far. No extra weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prm.aggregate import Aggregation
from prm.base import PRMError, StepScores, check_solutions
from prm.steps import SEPARATOR

Chat = Sequence[Mapping[str, Any]]
"""Turns as OpenAI writes them."""

# What differs between two chats of a search stands as late as it can, so that an engine's prefix cache serves the
# rest: all solutions of a question share the chat up to their first differing step, and each step's chat all but the
# closing question of the one before. There is one user turn, because not every chat template has a system role.
_OPENING = (
    "Below are a problem and the first steps of a solution to it, which may be wrong. Check every step: the "
    "reasoning, the calculation, and if an answer is given, the answer."
)
_CLOSING = "Is the solution correct so far? Answer Yes or No."


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one chat."""

    probability: float
    """P(Yes) / (P(Yes) + P(No)) of the next token."""
    tokens: int
    """Tokens computed for it: the prompt's without cached ones, and the generated."""


class Verify(Protocol):
    """Asks a language model."""

    async def __call__(self, chats: Sequence[Chat]) -> list[Verdict]:
        """One verdict a chat that ends in a question with the answers Yes and No; the order is kept.

        Cancelling the call stops its work.

        Raises:
            PRMInputError: a chat is longer than the model's context.
            PRMError: the model gave no verdict.
        """
        ...


class Judge:
    """A reward model that asks a language model, usually the policy, for a verdict after each step (2207.05221).

    The default aggregation is `last`: the last step's chat shows the whole solution, so its verdict alone is
    P(the solution is right); earlier verdicts judge less text, and `min` or `prod` would charge a solution for each
    of its steps at which the model was merely unsure.

    Args:
        verify: gives the verdicts.
        name: what `tts.prm` calls it.
    """

    aggregation: Aggregation = "last"

    def __init__(self, verify: Verify, name: str = "judge") -> None:
        self.name = name
        self._verify = verify

    async def score(self, question: str, solutions: Sequence[Sequence[str]]) -> list[StepScores]:
        check_solutions(solutions)
        # Candidates of one search often begin alike: a beginning is asked about once, and the first to have it pays.
        payer: dict[tuple[str, ...], int] = {}
        for i, steps in enumerate(solutions):
            for prefix in _prefixes(steps):
                payer.setdefault(prefix, i)
        verdicts = await self._verdicts([judge_chat(question, prefix) for prefix in payer])
        of = dict(zip(payer, verdicts, strict=True))
        return [
            StepScores(
                tuple(of[prefix].probability for prefix in _prefixes(steps)),
                sum(of[prefix].tokens for prefix in _prefixes(steps) if payer[prefix] == i),
            )
            for i, steps in enumerate(solutions)
        ]

    async def _verdicts(self, chats: list[Chat]) -> list[Verdict]:
        verdicts = await self._verify(chats) if chats else []
        if len(verdicts) != len(chats):
            raise PRMError(f"the verifier returned {len(verdicts)} verdicts for {len(chats)} chats")
        return verdicts


def judge_chat(question: str, steps: Sequence[str]) -> Chat:
    """What the model is asked about the solution so far."""
    solution = SEPARATOR.join(step.strip() for step in steps)
    text = f"{_OPENING}\n\nProblem:\n{question.strip()}\n\nSolution so far:\n{solution}\n\n{_CLOSING}"
    return [{"role": "user", "content": text}]


def _prefixes(steps: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(steps[: k + 1]) for k in range(len(steps))]
