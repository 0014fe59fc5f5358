"""Token classification models of TRL's PRMTrainer, such as HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2.

Source: `tokenize_row` of TRL's PRMTrainer: the prompt and each step are encoded alone, without a chat template, the
separator follows each step, and its last token carries the step's label. The default aggregation is `last`, that of
search-and-learn, for which the models above were trained.
"""

import re
from collections.abc import Sequence
from typing import Any

from prm.aggregate import Aggregation
from prm.base import PRMError
from prm.families.contract import SEPARATOR_KEY, Classes, Config, Family, Head, Layout, labels, layout
from prm.families.encoder import Encoder

_KNOWN = re.compile(r"(^|/|--)Qwen2\.5-Math-[\d.]+B-Instruct-PRM-0\.[12](/|$)")
"""The models whose cards say that the separator is a blank line."""


def recognises(config: Config, name: str) -> bool:
    return any(kind.endswith("ForTokenClassification") for kind in config.get("architectures") or ())


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    separator = separator or config.get(SEPARATOR_KEY) or ("\n\n" if _KNOWN.search(name) else None)
    if not separator:
        raise PRMError(
            f"the reward model {name!r} is of the family trl, which was trained with one of several step separators "
            f"and does not say which: name it, or write it into its config.json as {SEPARATOR_KEY}"
        )
    if labels(config) != 2:
        raise PRMError(f"a model of the family trl tells two classes apart, got {labels(config)}")
    return TRL(tokenizer, separator)


class TRL:
    r"""Plain text.

    Args:
        tokenizer: any.
        separator: between steps; it has to be the one of training (PRMTrainer's default is a line break).
    """

    name = "trl"
    aggregation: Aggregation = "last"
    head: Head = Classes(right=1)

    def __init__(self, tokenizer: Any, separator: str) -> None:
        self._encoder = Encoder(tokenizer, self.name)
        self._opening = self._encoder.control(tokenizer.bos_token or "")
        self._separator = self._encoder.control(separator)
        if not self._separator:
            raise PRMError(f"a step separator is a text that has tokens, got {separator!r}")

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        opening = (*self._opening, *self._encoder.text(question.strip()))
        return (layout(opening, ((*self._encoder.text(step.strip()), *self._separator) for step in steps)),)
