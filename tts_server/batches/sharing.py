"""One budget for all lines of a batch, spread by marginal gain (Damani et al. 2410.04707). Asks no engine.

A line is answered once, so it cannot wait for the others' pilots. Instead each has a price: what a token has to gain at
least, such that questions like those that were answered so far spend what is left. It draws its pilot, and goes on for
as long as it gains that; the next line has the price of what is left then. What was spent is read from the answers.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from strategies.allocation.policy_table import ALLOCATOR
from strategies.allocation.table import PILOT
from strategies.allocation.vote_value import Asking, Vote, price
from tts_server.batches.records import Request

ENDPOINTS = ("/v1/chat/completions", "/v1/responses")
"""Whose requests have one question each."""
SPREAD = 4
"""A line may have so many times what is left for one on the mean: only a share of them is under way at once."""
FIRST = 1024
"""Tokens for a pilot, where no answer has told yet what one takes."""
SEEN = 256
"""Answers from which the price is made, the latest."""


def own_compute(body: Mapping[str, Any], model: str) -> str | None:
    """The field by which a request decides itself what is spent on it, which a shared budget does for it."""
    tts = body.get("tts") or {}
    if not isinstance(tts, dict) or tts.get("strategy") not in (None, ALLOCATOR):
        return "tts.strategy" if isinstance(tts, dict) else "tts"
    if own := [name for name in ("budget", "min_gain") if tts.get(name) is not None]:
        return f"tts.{own[0]}"
    asked, reasoning = str(body.get("model")), body.get("reasoning")
    if asked.startswith(f"{model}@") and asked != f"{model}@{ALLOCATOR}":
        return "model"
    if body.get("reasoning_effort") is not None:
        return "reasoning_effort"
    return "reasoning.effort" if isinstance(reasoning, dict) and reasoning.get("effort") is not None else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer tells of questions like it."""

    tokens: int
    """Generated."""
    prm_tokens: int
    pilot: int
    """What its pilot took, scoring included."""
    generated: int
    """Of that."""
    samples: int
    """Of the pilot."""
    asking: Asking | None = None
    """How it stood then; None where its pilot was the answer."""

    @property
    def cost(self) -> int:
        return self.tokens + self.prm_tokens

    @classmethod
    def of(cls, body: Any) -> "Seen | None":
        """From an answer's body; None where it tells of no pilot."""
        tts = body.get("tts") if isinstance(body, dict) else None
        pilot = ((tts or {}).get("decision") or {}).get("pilot")
        if not tts or not pilot or "features" not in pilot:
            return None
        used, is_answer = tts["usage"], tts["decision"]["stop_reason"] in ("unanimous", "no_votes")
        cost = pilot["tokens"] + pilot["prm_tokens"]
        asking = None if is_answer else _asking(pilot)
        return cls(used["completion_tokens"], used["prm_tokens"], cost, pilot["tokens"], pilot["n"], asking)


def _asking(pilot: Mapping[str, Any]) -> Asking:
    n, told = pilot["n"], pilot["features"]
    votes, first = round(n * (1 - told["unparsed"])), round(n * told["share"])
    # Of the rest each answer but the second has one vote at least; of a pilot of four that is exact.
    second = max(0, min(first, votes - first - max(0, round(n * told["clusters"]) - 2)))
    return Asking(Vote(pilot["difficulty"], n, first, second), max(1.0, pilot["tokens"] / n))


class Sharing:
    """The budget of one batch.

    Args:
        tokens: the budget.
        spent: of it, so far.
        unanswered: lines that wait for their answers.
        at_once: lines under way at most.
        scored: whether there is a reward model, which takes its part.
    """

    def __init__(self, tokens: int, spent: int, unanswered: int, at_once: int, *, scored: bool) -> None:
        self.tokens = tokens
        self.spent = spent
        self._unanswered = unanswered
        self._at_once = at_once
        self._scored = scored
        self._reserved: dict[int, int] = {}
        """Of the lines under way, by their number."""
        self._seen: deque[Seen] = deque(maxlen=SEEN)

    @property
    def left(self) -> int:
        """Neither spent nor reserved."""
        return self.tokens - self.spent - sum(self._reserved.values())

    @property
    def is_spent(self) -> bool:
        """Whether there is nothing left, and nothing comes back."""
        return not self._reserved and self.left < 1

    @property
    def has_room(self) -> bool:
        """Whether a line may begin now."""
        return len(self._reserved) < self._most and (self.left >= min(FIRST, self._sample) or not self._reserved)

    def grant(self, request: Request) -> Request:
        """A request with what it may spend in it, which is set aside; where there is room, and something left."""
        waiting = self._unanswered - len(self._reserved)
        places = max(1, min(self._most - len(self._reserved), waiting))
        even = self.left / waiting
        if self._pilot is None:
            tokens = max(FIRST, even)
        elif even < self._pilot:
            # Not all of the lines to come can have one: as many as possible get a sample at least.
            tokens = max(2 * self._sample, even)
        else:
            # What the pilots to come need is not given away; a pilot may be twice as long as they are on the mean.
            slack = max(0.0, self.left - self._pilot * waiting)
            tokens = max(2 * self._pilot, self._pilot + slack / places)
        granted = max(1, min(self.left, math.ceil(tokens)))
        self._reserved[request.number] = granted
        return request._replace(body=self._laid_over(request.body, granted, self._prm_part(granted, even)))

    def _laid_over(self, asked: bytes, granted: int, prm_tokens: int | None) -> bytes:
        body = orjson.loads(asked)
        budget = {"max_tokens": max(1, granted - (prm_tokens or 0)), "max_prm_tokens": prm_tokens}
        tts = {"strategy": ALLOCATOR, "min_gain": min(1.0, 1000 * self.price), "budget": budget}
        return orjson.dumps(body | {"tts": (body.get("tts") or {}) | tts})

    def end(self, number: int, cost: int, *, answered: bool) -> None:
        """Takes what a line has cost; one without an answer is asked again."""
        self._reserved.pop(number, None)
        self.spent += cost
        self._unanswered -= answered

    def learn(self, body: Any) -> None:
        """Takes from an answer what such questions cost."""
        if (seen := Seen.of(body)) is not None:
            self._seen.append(seen)

    @property
    def price(self) -> float:
        """What a generated token has to gain, for the lines without an answer to spend what is not spent."""
        if self._unanswered < 1:
            return 0.0
        if self._pilot is None:
            # Where an even part may be less than a pilot, nobody has more than that.
            return 0.0 if (self.tokens - self.spent) / self._unanswered >= FIRST else 1.0
        generated = sum(seen.tokens for seen in self._seen)
        share = generated / max(1, sum(seen.cost for seen in self._seen))
        each = (self.tokens - self.spent) / self._unanswered - self._pilot
        return price([seen.asking for seen in self._seen if seen.asking], each * share * len(self._seen))

    @property
    def _most(self) -> int:
        # The first one tells what a pilot takes.
        return min(self._at_once, math.ceil(self._unanswered / SPREAD)) if self.spent else 1

    @property
    def _pilot(self) -> float | None:
        """What a pilot that is not cut takes on the mean; None before one was seen."""
        return self._sample * max(seen.samples for seen in self._seen) if self._seen else None

    @property
    def _generated(self) -> float:
        """Generated tokens of one of a pilot's samples, on the mean."""
        return sum(seen.generated for seen in self._seen) / sum(seen.samples for seen in self._seen)

    @property
    def _sample(self) -> float:
        """What one of a pilot's samples takes on the mean, scoring included."""
        samples = sum(seen.samples for seen in self._seen)
        return sum(seen.pilot for seen in self._seen) / samples if samples else FIRST

    def _prm_part(self, granted: int, even: float) -> int | None:
        """So much that what is generated can be scored; 0 where an even part does not pay for a pilot with scores."""
        if not self._scored:
            return None
        ratios = [seen.prm_tokens / seen.tokens for seen in self._seen if seen.prm_tokens and seen.tokens]
        most = max(ratios, default=1.0)
        if self._seen and even < (1 + most) * PILOT * self._generated:
            return 0
        return math.floor(granted * most / (1 + most))
