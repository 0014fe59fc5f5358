"""Reward models that write a critique: a verdict on each step and one on the whole solution (ThinkPRM, 2504.16828).

Source: mukhal/ThinkPRM, `utils/helper.py` (the prompt), `prm/thinkprm.py` (the scores) and the released training
chains, which end in `</think>\\nIs the solution correct? Yes`. The critique stops where it would go on
to steps that do not exist. The last question is always put to the model, whether it reached it by itself or not, so
there is always a score.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prm.aggregate import Aggregation
from prm.base import Choice, OnTokens, PRMError, StepScores, check_scores, check_solutions, refuse
from prm.families.contract import Backend, LabelTokens, Layout
from prm.families.encoder import SLOT, Encoder, TokenIds

MAX_TOKENS = 4096
"""The most tokens of one critique where the context has room for them: the authors' limit."""
LEAST_TOKENS = 64
"""A solution that leaves fewer tokens for its critique is too long."""

_TASK = "You are given a math problem and a proposed step-by-step solution:"
_INSTRUCTION = (
    "Review and critique each step in the proposed solution to determine whether each step is correct. If the "
    "solution is incomplete, only verify the provided steps."
)
_CUE = "\nLet's verify step by step:"
_THOUGHT = "</think>"
_QUESTION = "Is the solution correct?"
_RIGHT, _WRONG = " Yes", " No"
_NUMBERED = re.compile(r"^(?:## )?Step \d+:\s*")
_VERDICT = re.compile(r"\\boxed\{\s*(?:\\text\{\s*)?(correct|incorrect)\b")


class Write(Protocol):
    """Generates text."""

    async def __call__(
        self,
        prompts: Sequence[TokenIds],
        stops: Sequence[Sequence[str]],
        max_tokens: int,
        *,
        on_tokens: OnTokens | None = None,
    ) -> list[str]:
        """The likeliest continuation of each prompt up to one of its stop strings; the order is kept.

        Cancelling the call stops its work. `on_tokens` receives the tokens as they are computed.

        Raises:
            PRMError: the model wrote nothing.
        """
        ...


class GenerativePRM:
    """Scores the last step by P(Yes) after the critique, and each earlier one by the critique's verdicts up to it.

    An earlier step scores 1 while the critique calls it and all steps before it correct, and 0 from the first incorrect
    step on, also without a verdict of its own. If the critique finds nothing wrong but does not reach a step, that step
    has the score of the whole solution. The default aggregation is `last`: the authors rank solutions by P(Yes).

    Args:
        tokenizer: of the model, with a chat template.
        write: generates the critiques.
        reader: reads the probabilities of `labels`; started and closed with this.
        name: what `tts.prm` calls it.
        max_tokens: of one critique.

    Raises:
        PRMError: the tokenizer has no chat template, or no token for a label.
    """

    aggregation: Aggregation = "last"
    selector: Choice = "weighted"
    trained = True

    def __init__(
        self, tokenizer: Any, write: Write, reader: Backend, name: str = "generative", max_tokens: int = MAX_TOKENS
    ) -> None:
        self.name = name
        self._write = write
        self._reader = reader
        self._max_tokens = max_tokens
        self._encoder = Encoder(tokenizer, "generative")
        self._before, self._after = _turn(tokenizer, self._encoder)
        thinks = _THOUGHT in tokenizer.get_vocab()
        self._asks = self._encoder.control(f"{_THOUGHT if thinks else ''}\n{_QUESTION}")

    async def start(self) -> None:
        await self._reader.start()

    async def close(self) -> None:
        await self._reader.close()

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        check_solutions(solutions)
        distinct = list(dict.fromkeys(map(tuple, solutions)))
        prompts = [self._prompt(question, steps) for steps in distinct]
        self._check_room(solutions, dict(zip(distinct, map(len, prompts), strict=True)))
        room = min(self._room(max(map(len, prompts), default=0)), self._max_tokens)
        stops = [(_THOUGHT, _QUESTION, f"Step {len(steps) + 1}:") for steps in distinct]
        critiques = await self._write(prompts, stops, room, on_tokens=on_tokens)
        if len(critiques) != len(distinct):
            raise PRMError(f"{self.name!r} wrote {len(critiques)} critiques of {len(distinct)} solutions")
        decisions = [self._decision(*both, room) for both in zip(prompts, critiques, strict=True)]
        read = await self._reader.read(decisions, on_tokens=on_tokens)
        of = {
            steps: StepScores(step_scores(critique, len(steps), whole))
            for steps, critique, (whole,) in zip(distinct, critiques, read, strict=True)
        }
        results = [of[tuple(steps)] for steps in solutions]
        check_scores(solutions, results)
        return results

    def _check_room(self, solutions: Sequence[Sequence[str]], lengths: Mapping[tuple[str, ...], int]) -> None:
        rooms = [self._room(lengths[tuple(steps)]) for steps in solutions]
        refuse(
            {
                i: f"the question and the steps of solution {i} leave {max(room, 0)} of {self._reader.max_len} tokens "
                f"for the critique of {self.name!r}, which needs {LEAST_TOKENS}"
                for i, room in enumerate(rooms)
                if room < LEAST_TOKENS
            }
        )

    def _room(self, prompt: int) -> int:
        """Returns how many tokens a critique may have after a prompt of this many tokens."""
        return self._reader.max_len - len(self._asks) - prompt

    def _prompt(self, question: str, steps: Sequence[str]) -> TokenIds:
        solution = "\n".join(f"Step {k}: {_NUMBERED.sub('', step.strip())}" for k, step in enumerate(steps, 1))
        turn = f"{_TASK}\n\n[Math Problem]\n\n{question.strip()}\n\n[Solution]\n\n{solution}\n\n{_INSTRUCTION}"
        return (*self._before, *self._encoder.text(turn), *self._after)

    def _decision(self, prompt: TokenIds, critique: str, room: int) -> Layout:
        ids = (*prompt, *self._encoder.text(critique.rstrip())[:room], *self._asks)
        return Layout(ids, (len(ids) - 1,))


def labels(tokenizer: Any) -> LabelTokens:
    """Returns the labels whose probabilities a reader of this family reads.

    Raises:
        PRMError: the tokenizer has no token for a label.
    """
    encoder = Encoder(tokenizer, "generative")
    return LabelTokens(encoder.single(_QUESTION, _RIGHT), encoder.single(_QUESTION, _WRONG))


def step_scores(critique: str, steps: int, whole: float) -> tuple[float, ...]:
    """Returns the step scores of a solution, from its critique and the score `whole` of the last step."""
    verdicts = [verdict == "correct" for verdict in _VERDICT.findall(critique)][: steps - 1]
    if False in verdicts:
        right = verdicts.index(False)
        return (*(1.0,) * right, *(0.0,) * (steps - 1 - right), whole)
    return (*(1.0,) * len(verdicts), *(whole,) * (steps - len(verdicts)))


def _turn(tokenizer: Any, encoder: Encoder) -> tuple[TokenIds, TokenIds]:
    """Returns the tokens before and after the text of the user's turn; those after it begin the critique."""
    if tokenizer.chat_template is None:
        raise PRMError("a reward model of the family generative needs a chat template, which its tokenizer lacks")
    chat = [{"role": "user", "content": SLOT}]
    text: str = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before, _, after = text.partition(SLOT)
    return encoder.control(before), encoder.control(after + _CUE)
