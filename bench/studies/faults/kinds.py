"""What can go wrong, and how a question tells it: the upstream and the reward model read it where they are asked."""

import random
import re
from dataclasses import dataclass
from typing import Literal, get_args

Fault = Literal[
    "none",
    "refuse",
    "hang",
    "busy",
    "error",
    "unavailable",
    "nonsense",
    "page",
    "trickle",
    "stall",
    "cut",
    "reset",
    "garbage",
    "types",
    "report",
    "early",
    "unlabelled",
    "long",
]
"""Of one call of the upstream.

Before it answers: it closes the connection, says nothing, says 429, 500 or 503, speaks no HTTP, or sends a web page.
While it does: it sends a few bytes at a time, says no more, closes in the middle of a token, resets, sends bytes that
are no JSON, JSON of wrong types, an error, or ends before the samples have; or it leaves the verdict's labels out. Or
nothing is wrong, and the answer is long and slow."""
BEFORE: frozenset[Fault] = frozenset({"refuse", "hang", "busy", "error", "unavailable", "nonsense", "page"})
FAULTS: tuple[Fault, ...] = get_args(Fault)

PRMFault = Literal["none", "raises", "breaks", "hangs", "short", "few"]
"""Of the reward model: it says why it fails, fails without, says nothing, scores too few steps, or solutions."""
PRM_FAULTS: tuple[PRMFault, ...] = get_args(PRMFault)

_MARK = re.compile(r"<<(\d+) ([a-z]+) ([a-z]+) ([\d.]+)>>")


@dataclass(frozen=True, slots=True)
class Mark:
    """What a question says of its own request."""

    number: int = -1
    """Of the request; below 0 where a text has no mark."""
    fault: Fault = "none"
    prm: PRMFault = "none"
    share: float = 1.0
    """Of the calls that the fault befalls."""

    def __str__(self) -> str:
        return f"<<{self.number} {self.fault} {self.prm} {self.share}>>"

    def befalls(self, seed: int, call: int) -> bool:
        """Whether the request's call of this number is hit; the same for the same seed."""
        return random.Random(f"{seed}|{self.number}|{call}").random() < self.share


def mark_in(text: str) -> Mark:
    """The first mark of a text."""
    found = _MARK.search(text)
    if found is None or found[2] not in FAULTS or found[3] not in PRM_FAULTS:
        return Mark()
    fault = next(fault for fault in FAULTS if fault == found[2])
    prm = next(prm for prm in PRM_FAULTS if prm == found[3])
    return Mark(int(found[1]), fault, prm, float(found[4]))
