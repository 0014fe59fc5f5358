"""How to spend compute on a request, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one request may spend; None is the server's own limit."""

    max_samples: int | None = None
    max_tokens: int | None = None
    """Generated over all branches."""
    max_prm_tokens: int | None = None
    deadline_s: float | None = None


class TTS:
    """A strategy with its options as keywords, a budget, and what comes back.

    >>> TTS("best_of_n", n=16, selector="weighted", budget=Budget(deadline_s=30)).fields
    {'strategy': 'best_of_n', 'budget': {'deadline_s': 30}, 'n': 16, 'selector': 'weighted'}

    Args:
        strategy: one of `Client.strategies()`; None is what the model's alias, the effort or the server chooses.
        budget: what it may spend.
        prm: which reward model scores.
        return_candidates: whether every finished attempt comes back.
        options: the strategy's own; None is the server's default.
    """

    def __init__(
        self,
        strategy: str | None = None,
        *,
        budget: Budget | None = None,
        prm: str | None = None,
        return_candidates: bool = False,
        **options: Any,
    ) -> None:
        self.strategy = strategy
        self.budget = budget
        self.prm = prm
        self.return_candidates = return_candidates
        self.options = options

    @property
    def fields(self) -> dict[str, Any]:
        """The wire's `tts` object."""
        budget = {f.name: getattr(self.budget, f.name) for f in fields(Budget)} if self.budget else {}
        said = {
            "strategy": self.strategy,
            "budget": {name: value for name, value in budget.items() if value is not None} or None,
            "prm": self.prm,
            "return_candidates": self.return_candidates or None,
            **self.options,
        }
        return {name: value for name, value in said.items() if value is not None}


def tts_fields(tts: TTS | Mapping[str, Any] | str) -> dict[str, Any]:
    """The wire's `tts` object.

    >>> tts_fields("self_consistency")
    {'strategy': 'self_consistency'}
    """
    if isinstance(tts, str):
        return {"strategy": tts}
    return tts.fields if isinstance(tts, TTS) else dict(tts)
