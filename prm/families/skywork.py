"""Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B.

Source: `prepare_input` of SkyworkAI/skywork-o1-prm-inference and the model code beside it: plain text, one line a
step, each encoded alone and ended by the token of a line break, where a head of one value is read through a sigmoid.
"""

from collections.abc import Sequence
from typing import Any

from prm.aggregate import Aggregation
from prm.families.contract import Config, Family, Head, Layout, Sigmoid, check_separator, layout
from prm.families.encoder import Encoder, TokenIds

_BREAK = "\n"


def recognises(config: Config, name: str) -> bool:
    return "Qwen2ForPrmModel" in (config.get("architectures") or ())


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("skywork", separator)
    return Skywork(tokenizer)


class Skywork:
    """Plain text. The lines of one step are laid out as lines, of which the last gives its score.

    Blank lines are left out: the recipe stops at one. The default aggregation is `last`, that of search-and-learn:
    the authors name none.

    Args:
        tokenizer: in which a line break is one token.
    """

    name = "skywork"
    aggregation: Aggregation = "last"
    head: Head = Sigmoid()

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = Encoder(tokenizer, self.name)
        self._bos = self._encoder.control(tokenizer.bos_token or "")
        self._break = self._encoder.single("a", _BREAK)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        opening = (*self._bos, *self._encoder.text(question.strip() + _BREAK))
        return (layout(opening, (self._lines(step) for step in steps)),)

    def _lines(self, step: str) -> TokenIds:
        lines = [line for line in step.strip().split(_BREAK) if line.strip()]
        return tuple(i for line in lines for i in (*self._encoder.text(line), self._break))
