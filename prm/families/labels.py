"""Language models trained by this project's own recipe: asked after each step, they answer by one of two tokens.

    {the question as a user's turn}{the opening of the answer}{step 1}
    So far:{ right | wrong}          ← read here, not written into what follows

    {step 2}
    So far:{ right | wrong}

Every piece is encoded by itself, so the tokens of a solution's beginning are a prefix of the whole's. A directory that
`tts-bench prm-train` writes holds `prm.json`: the labels and the aggregation, whose keys come here as `prm_…` beside
those of `config.json`.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from prm.aggregate import AGGREGATIONS, Aggregation
from prm.base import PRMError
from prm.families.contract import Config, Family, Head, LabelTokens, Layout, check_separator, layout
from prm.families.encoder import SLOT, Encoder, TokenIds
from prm.steps import SEPARATOR

RIGHT, WRONG = " right", " wrong"
"""The labels that new models are trained with: words, of which a language model has a sense to begin with."""
CUE = "\nSo far:"
"""What stands before a label."""


def recognises(config: Config, name: str) -> bool:
    """Never: such a model says its family itself."""
    return False


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("labels", separator)
    missing = [key for key in ("right", "wrong") if not isinstance(config.get(f"prm_{key}"), str)]
    if missing:
        raise PRMError(f"a model of the family labels names its labels in prm.json; {missing[0]!r} of {name!r} is not")
    aggregation = config.get("prm_aggregation", "last")
    if aggregation not in AGGREGATIONS:
        raise PRMError(f"the aggregation in prm.json of {name!r} is one of {', '.join(AGGREGATIONS)}")
    return Labels(tokenizer, config["prm_right"], config["prm_wrong"], aggregation)


class Labels:
    """A chat of two turns, or plain text where the tokenizer has no chat template.

    The default aggregation is `last`: labels from rollouts say how likely the whole solution is to end right, and
    among models of such labels the last step's score chooses best (2501.07301, table 6).

    Args:
        tokenizer: one in which each label is one token after the cue.
        right: the label of a solution that is right so far.
        wrong: the label of one that is not.
        aggregation: how step scores become one score.
    """

    name = "labels"

    def __init__(
        self, tokenizer: Any, right: str = RIGHT, wrong: str = WRONG, aggregation: Aggregation = "last"
    ) -> None:
        self.aggregation: Aggregation = aggregation
        self._encoder = Encoder(tokenizer, self.name)
        self._cue = self._encoder.after("a", CUE)
        labels = LabelTokens(*(self._encoder.single(CUE, label) for label in (right, wrong)))
        if labels.right == labels.wrong:
            raise PRMError(f"the labels of a model of the family labels are two, not {right!r} twice")
        self.head: Head = labels
        self._before, self._between = self._turns(tokenizer)
        self._to_step = self._encoder.after("a", SEPARATOR)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        opening = (*self._before, *self._encoder.text(question.strip()), *self._between)
        first, *rest = ((*self._encoder.text(step.strip()), *self._cue) for step in steps)
        return (layout(opening, chain([first], ((*self._to_step, *step) for step in rest))),)

    def _turns(self, tokenizer: Any) -> tuple[TokenIds, TokenIds]:
        """What stands before and after the question."""
        if tokenizer.chat_template is None:
            return self._encoder.opening(), self._encoder.after("a", SEPARATOR)
        before, between, _ = self._encoder.chat([("user", SLOT), ("assistant", SLOT)])
        return before, between
