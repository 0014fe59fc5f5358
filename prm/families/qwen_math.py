"""Qwen2.5-Math-PRM-7B and -72B, Qwen2.5-Math-7B-PRM800K (2501.07301).

Source: the models' cards, whose recipe puts `<extra_0>` after each step of the assistant's turn and reads the second
of two classes there. The default aggregation is `prod`: the paper's best-of-N multiplies the step scores.
"""

from collections.abc import Sequence
from typing import Any

from prm.aggregate import Aggregation
from prm.families.contract import Classes, Config, Family, Head, Layout, check_separator, layout
from prm.families.encoder import SLOT, Encoder

_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
_TAG = "<extra_0>"


def recognises(config: Config, name: str) -> bool:
    return "Qwen2ForProcessRewardModel" in (config.get("architectures") or ())


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("qwen_math", separator)
    return QwenMath(tokenizer)


class QwenMath:
    """A chat of three turns, of which the last holds the steps.

    Args:
        tokenizer: with a chat template and the token `<extra_0>`.
    """

    name = "qwen_math"
    aggregation: Aggregation = "prod"
    head: Head = Classes(right=1)

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = Encoder(tokenizer, self.name)
        self._tag = self._encoder.token(_TAG)
        turns = [("system", _SYSTEM), ("user", SLOT), ("assistant", SLOT)]
        self._before, self._between, _ = self._encoder.chat(turns)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        opening = (*self._before, *self._encoder.text(question.strip()), *self._between)
        return (layout(opening, ((*self._encoder.text(step.strip()), self._tag) for step in steps)),)
