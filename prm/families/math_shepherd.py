"""Math-Shepherd's Mistral-7B reward model, and language models trained in its format (2312.08935).

Source: the card of peiyi9979/math-shepherd-mistral-7b-prm, whose recipe reads plain text of the form
`{question} Step 1: … ки` with a line a step, and the next-token logits of ` +` and ` -` at each `ки`. The default
aggregation is `min`: the paper scores a solution by its lowest step.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from prm.aggregate import Aggregation
from prm.families.contract import Config, Family, Head, LabelTokens, Layout, check_separator, layout, named
from prm.families.encoder import Encoder, TokenIds

_TAG = "ки"
_RIGHT, _WRONG = " +", " -"
_NUMBERED = re.compile(r"Step \d+:")


def recognises(config: Config, name: str) -> bool:
    return named(config, name, re.compile("math-shepherd-mistral-7b-prm", re.IGNORECASE))


def build(config: Config, tokenizer: Any, name: str, separator: str | None) -> Family:
    check_separator("math_shepherd", separator)
    return MathShepherd(tokenizer)


class MathShepherd:
    """Plain text; each step is numbered, as in the training data, unless it says its number itself.

    Where the tag is one token, a user who writes it is spelled by others.

    Args:
        tokenizer: any in which ` +` and ` -` are one token each.
    """

    name = "math_shepherd"
    aggregation: Aggregation = "min"

    def __init__(self, tokenizer: Any) -> None:
        self._encoder = Encoder(tokenizer, self.name)
        self._opening = self._encoder.opening()
        self._tag = self._encoder.after("a", f" {_TAG}")
        right, wrong = (self._encoder.single(_TAG, label) for label in (_RIGHT, _WRONG))
        self.head: Head = LabelTokens(right, wrong)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        first, *rest = (_numbered(k, step.strip()) for k, step in enumerate(steps, 1))
        begun = self._encoder.text(f"{question.strip()} {first}")
        # The end of a tag is a token boundary, and no tokenizer's first space stands after one.
        more = (self._encoder.after(_TAG, f"\n{step}") for step in rest)
        return (layout(self._opening, (self._tagged(ids) for ids in chain([begun], more))),)

    def _tagged(self, step: TokenIds) -> TokenIds:
        text = self._encoder.apart(step, self._tag[0]) if len(self._tag) == 1 else step
        return (*text, *self._tag)


def _numbered(number: int, step: str) -> str:
    return step if _NUMBERED.match(step) else f"Step {number}: {step}"
