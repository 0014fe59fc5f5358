"""The policy itself as verifier: asked after each step whether the solution is right so far. No extra weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prm.aggregate import Aggregation
from prm.base import Choice, OnTokens, PRMError, PRMInputError, StepScores, check_solutions, refuse
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


class Verify(Protocol):
    """Asks a language model."""

    async def __call__(
        self, chats: Sequence[Chat], *, on_tokens: OnTokens | None = None
    ) -> Sequence[float | PRMInputError]:
        """P(Yes) / (P(Yes) + P(No)) of each chat's next token, or that it is too long; the order is kept.

        Each chat ends in a question with the answers Yes and No. Cancelling the call stops its work. `on_tokens` is
        told of each chat's tokens as they are computed, also of one that is cancelled or fails later.

        Raises:
            PRMError: the model gave no verdict.
        """
        ...


class Judge:
    """A reward model that asks a language model, usually the policy, for a verdict after each step (2207.05221).

    The default aggregation is `min`: a small model that sees a whole solution tells right from wrong no better than
    chance, and the step that it doubts most tells more (with a model of 0.5B on GSM8K, AUC within a problem 0.60
    against 0.51). The default selector is `weighted`: the highest of many verdicts is the most mistaken one.

    Args:
        verify: gives the verdicts.
        name: what `tts.prm` calls it.
    """

    aggregation: Aggregation = "min"
    selector: Choice = "weighted"
    trained = False

    def __init__(self, verify: Verify, name: str = "judge") -> None:
        self.name = name
        self._verify = verify

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        check_solutions(solutions)
        # Candidates of one search often begin alike: a beginning is asked about once.
        prefixes = list(dict.fromkeys(prefix for steps in solutions for prefix in _prefixes(steps)))
        verdicts = await self._verdicts([judge_chat(question, prefix) for prefix in prefixes], on_tokens)
        of = dict(zip(prefixes, verdicts, strict=True))
        faults, scored = dict[int, str](), dict[int, StepScores]()
        for i, steps in enumerate(solutions):
            said = [of[prefix] for prefix in _prefixes(steps)]
            known = tuple(verdict for verdict in said if not isinstance(verdict, PRMInputError))
            if len(known) == len(said):
                scored[i] = StepScores(known)
            else:
                faults[i] = next(str(verdict) for verdict in said if isinstance(verdict, PRMInputError))
        refuse(faults, scored)
        return [scored[i] for i in range(len(solutions))]

    async def _verdicts(self, chats: list[Chat], on_tokens: OnTokens | None) -> Sequence[float | PRMInputError]:
        verdicts = await self._verify(chats, on_tokens=on_tokens) if chats else []
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
