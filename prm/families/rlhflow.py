"""RLHFlow's Llama3.1-8B-PRM-Deepseek-Data and -Mistral-Data.

Source: `math-rm/prm_evaluate.py` and the README beside it in RLHFlow/RLHF-Reward-Modeling: a chat in which the user
says the question with the first step, then a step a turn, and the assistant answers each with `+`. A score is read
where that `+` is predicted. The default aggregation is `mean`, theirs.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from prm.aggregate import Aggregation
from prm.base import PRMError
from prm.families.contract import Config, Family, Head, LabelTokens, Layout, check_separator, layout, named
from prm.families.encoder import SLOT, Encoder

_RIGHT, _WRONG = "+", "-"


def recognises(config: Config, name: str) -> bool:
    return named(config, name, re.compile(r"llama3\.1-8b-prm-(deepseek|mistral)-data", re.IGNORECASE))


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("rlhflow", separator)
    return RLHFlow(tokenizer)


class RLHFlow:
    """A chat of two turns a step.

    Args:
        tokenizer: with a chat template in which a turn is written the same wherever it stands after the first.
    """

    name = "rlhflow"
    aggregation: Aggregation = "mean"

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = Encoder(tokenizer, self.name)
        self._right = self._encoder.single("\n\n", _RIGHT)
        self.head: Head = LabelTokens(self._right, self._encoder.single("\n\n", _WRONG))
        first, *parts = self._encoder.chat([("user", SLOT), ("assistant", SLOT)] * 3)
        self._opening, (self._to_label, self._to_step) = first, parts[:2]
        if parts[2:5] != [self._to_label, self._to_step, self._to_label]:
            raise PRMError(
                "the chat template of the tokenizer writes equal turns differently: the family rlhflow cannot use it"
            )

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        first, *rest = (step.strip() for step in steps)
        begun = (*self._encoder.text(f"{question.strip()} {first}"), *self._to_label)
        between = (self._right, *self._to_step)
        more = ((*between, *self._encoder.text(step), *self._to_label) for step in rest)
        return (layout(self._opening, chain([begun], more)),)
