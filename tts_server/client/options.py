"""How to spend compute on a request, typed; `strategies` has a class for each strategy of the server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one request may spend; None is the server's own limit."""

    max_samples: int | None = None
    max_tokens: int | None = None
    """Generated over all branches."""
    max_prm_tokens: int | None = None
    deadline_s: float | None = None


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
"""An option that is not sent, so that the server's default holds; None is sent as null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """What every strategy takes.

    >>> tts_fields(BestOfN(n=16, selector="weighted", budget=Budget(deadline_s=30)))
    {'strategy': 'best_of_n', 'budget': {'deadline_s': 30}, 'n': 16, 'selector': 'weighted'}
    """

    strategy: ClassVar[str]
    budget: Budget = UNSET
    prm: str | None = UNSET
    """Which reward model scores."""
    return_candidates: bool = UNSET
    """Whether every finished attempt comes back."""
    system_prompt: str | None = UNSET
    """A system message for requests without one."""
    examples: Sequence[Mapping[str, Any]] | None = UNSET
    """Worked examples, put before the question."""


class TTS:
    """A strategy by its name, with its options as plain keywords; also of strategies that have no class here.

    >>> tts_fields(TTS("best_of_n", n=16, budget=Budget(deadline_s=30), return_candidates=True))
    {'strategy': 'best_of_n', 'n': 16, 'budget': {'deadline_s': 30}, 'return_candidates': True}

    Args:
        strategy: one of `Client.strategies()`; None is what the model's alias, the effort or the server chooses.
        options: the strategy's own, and `budget`, `prm` and `return_candidates`.
    """

    def __init__(self, strategy: str | None = None, **options: Any) -> None:
        self.strategy = strategy
        self.options = options

    def __repr__(self) -> str:
        return f"TTS({self.strategy!r}{''.join(f', {name}={value!r}' for name, value in self.options.items())})"


Options = StrategyOptions | TTS | Mapping[str, Any] | str
"""Typed, by keywords, as the wire has it, or only a strategy's name."""


def tts_fields(tts: Options) -> dict[str, Any]:
    """The wire's `tts` object.

    >>> tts_fields("self_consistency")
    {'strategy': 'self_consistency'}
    """
    match tts:
        case str():
            return {"strategy": tts}
        case TTS():
            named = {} if tts.strategy is None else {"strategy": tts.strategy}
            return named | {name: _wire(value) for name, value in tts.options.items()}
        case StrategyOptions():
            values = {field.name: getattr(tts, field.name) for field in fields(tts)}
            given = {name: _wire(value) for name, value in values.items() if value is not UNSET}
            return {"strategy": tts.strategy, **given}
    return {name: _wire(value) for name, value in tts.items()}


def _wire(value: Any) -> Any:
    if not isinstance(value, Budget):
        return value
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: value for name, value in values.items() if value is not None}
