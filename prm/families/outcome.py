"""Outcome reward models: sequence classification with one score a solution, such as Skywork-Reward-Llama-3.1-8B.

Source: their cards and transformers' `*ForSequenceClassification`: a chat of the question and the answer through the
model's template, scored at its last token. One value is read through a sigmoid: the difference of two such values is
the log-odds of preferring one answer (Bradley-Terry), so the sigmoid orders answers as the model does but is no
calibrated probability. Of two classes the second is read.
"""

from collections.abc import Sequence
from typing import Any

from prm.aggregate import Aggregation
from prm.base import PRMError
from prm.families.contract import Classes, Config, Family, Head, Layout, Sigmoid, check_separator, labels
from prm.families.encoder import SLOT, Encoder
from prm.steps import SEPARATOR


def recognises(config: Config, name: str) -> bool:
    return any(kind.endswith("ForSequenceClassification") for kind in config.get("architectures") or ())


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("outcome", separator)
    if labels(config) not in (1, 2):
        raise PRMError(f"a model of the family outcome gives one value or two classes, got {labels(config)}")
    return Outcome(tokenizer, Sigmoid() if labels(config) == 1 else Classes(right=1))


class Outcome:
    """A chat of two turns. Step k is scored as if the solution ended there: each step has a layout of its own.

    The default aggregation is `last`, the score of the whole solution: the model was trained for no other.

    Args:
        tokenizer: with a chat template.
        head: the model's.
    """

    name = "outcome"
    aggregation: Aggregation = "last"

    def __init__(self, tokenizer: Any, head: Head) -> None:
        self.head = head
        self._encoder = Encoder(tokenizer, self.name)
        self._before, self._between, self._after = self._encoder.chat([("user", SLOT), ("assistant", SLOT)])
        if not self._after:
            raise PRMError("the chat template of the tokenizer does not end a turn: outcome has no token to score")

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        opening = (*self._before, *self._encoder.text(question.strip()), *self._between)
        stripped = [step.strip() for step in steps]
        texts = (SEPARATOR.join(stripped[: k + 1]) for k in range(len(stripped)))
        whole = ((*opening, *self._encoder.text(text), *self._after) for text in texts)
        return tuple(Layout(ids, (len(ids) - 1,)) for ids in whole)
