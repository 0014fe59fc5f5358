"""Language models trained by this project's own recipe: after each step they are asked, and answer by one of two tokens.

    {the question as a user's turn}{the opening of the answer}{step 1}
    So far:{ right | wrong}          ← read here, not written into what follows

    {step 2}
    So far:{ right | wrong}

Every piece is encoded by itself, so the tokens of a solution's beginning are a prefix of the whole's. A directory that
`tts-bench prm-train` writes holds `prm.json`: the labels and the aggregation, whose keys come here as `prm_…` beside
those of `config.json`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from prm.aggregate import AGGREGATIONS, Aggregation
from prm.base import PRMError
from prm.family import Config, LabelTokens, Layout
from prm.steps import SEPARATOR

RIGHT, WRONG = " right", " wrong"
"""The labels that new models are trained with: whole words, which a language model begins with some sense of."""
CUE = "\nSo far:"
"""What stands before a label."""

_QUESTION = "x5b3e0c1f7a9d4286q"
"""Stands for the question while the chat template is rendered: one word that no template changes."""


class Labels:
    """Reads the two labels' probabilities after each step.

    The default aggregation is `last`: labels from rollouts say how likely the whole solution is to end right, and of
    such models the last step's score chooses best (Math-Shepherd's kind in 2501.07301, table 6).

    Args:
        tokenizer: of transformers.
        right: the label of a solution that is right so far, one token.
        wrong: the label of one that is not.
        aggregation: how step scores become one score.

    Raises:
        PRMError: a label is not one token, or the chat template does not show the question.
    """

    name = "labels"

    def __init__(
        self, tokenizer: Any, right: str = RIGHT, wrong: str = WRONG, aggregation: Aggregation = "last"
    ) -> None:
        self.aggregation: Aggregation = aggregation
        self._tokenizer = tokenizer
        self.head = LabelTokens(self._label(right), self._label(wrong))
        if self.head.right == self.head.wrong:
            raise PRMError(f"the labels {right!r} and {wrong!r} are the same token")
        self._opening, self._closing = self._question_turn()
        self._cue = self._encode(CUE)
        self._separator = self._encode(SEPARATOR)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        ids = [*self._opening, *self._encode(question.strip()), *self._closing]
        ends = []
        for k, step in enumerate(steps):
            ids += [*(self._separator if k else ()), *self._encode(step.strip()), *self._cue]
            ends.append(len(ids) - 1)
        return (Layout(tuple(ids), tuple(ends)),)

    def _question_turn(self) -> tuple[list[int], list[int]]:
        """What stands before and after the question."""
        if self._tokenizer.chat_template is None:
            return self._tokenizer.encode(""), self._encode(SEPARATOR)
        chat = [{"role": "user", "content": _QUESTION}]
        rendered = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, shown, after = rendered.partition(_QUESTION)
        if not shown:
            raise PRMError("the model's chat template does not show a user's turn as it is")
        encode = partial(self._tokenizer.encode, add_special_tokens=False)
        return encode(before), encode(after)

    def _label(self, text: str) -> int:
        ids = self._encode(text)
        if len(ids) != 1:
            raise PRMError(f"the label {text!r} must be one token of the model's tokenizer, it is {len(ids)}")
        return ids[0]

    def _encode(self, text: str) -> list[int]:
        """A text's tokens; a control token that it spells stays text."""
        return cast("list[int]", self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def recognises(config: Config, name: str) -> bool:
    """Never: such a model says its family itself."""
    return False


def build(config: Config, tokenizer: Any, name: str = "", separator: str | None = None) -> Labels:
    """The family as the model's `prm.json` describes it.

    Raises:
        PRMError: the description lacks a label, or says something this family does not have.
    """
    missing = [key for key in ("right", "wrong") if not isinstance(config.get(f"prm_{key}"), str)]
    if missing:
        raise PRMError(f"{name}: the family 'labels' needs prm.json to say the label {missing[0]!r}")
    if separator not in (None, SEPARATOR):
        raise PRMError(f"{name}: the family 'labels' separates steps by a blank line, not by {separator!r}")
    aggregation = config.get("prm_aggregation", "last")
    if aggregation not in AGGREGATIONS:
        raise PRMError(f"{name}: aggregation is one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
    return Labels(tokenizer, config["prm_right"], config["prm_wrong"], aggregation)
