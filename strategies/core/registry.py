"""The registry: every strategy by its name, with what is derived from its signature."""

import inspect
import logging
import pkgutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from prm import ProcessRewardModel
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Task

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_entries: dict[str, "Entry"] = {}


class Strategy(Protocol):
    """Spends a budget on one task.

    Yields events and ends with exactly one `Final`. Keeps nothing between requests. `engine` and `prm` are metered by
    `account`, so whatever it does is counted and stopped in time.
    """

    def __call__(
        self, task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account, **options: Any
    ) -> AsyncGenerator[Event, None]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered strategy and what is derived from its signature."""

    name: str
    run: Strategy
    paper: str
    scored: bool
    """Whether it can use a reward model, and so takes `prm` and `aggregation`."""
    needs_prm: bool
    """Whether it cannot do without one."""
    continues: bool
    """Whether it needs an engine that continues from token ids."""
    whole: bool
    """Whether each answer is one sample that is drawn as the request says, so that what counts over a whole answer
    (penalties, `min_tokens`) holds."""
    formed: bool
    """Whether it answers in a form that the request fixes: JSON, or calls of tools."""
    options: type[BaseModel]

    @property
    def description(self) -> str:
        return (inspect.getdoc(self.run) or "").partition("\n")[0]


def strategy(
    name: str,
    *,
    paper: str,
    scored: bool = False,
    needs_prm: bool = False,
    continues: bool = False,
    whole: bool = False,
    formed: bool = False,
) -> Callable[[F], F]:
    """Registers an async generator of events as the strategy `name`.

    Raises:
        ValueError: the name is taken.
    """

    def register(run: F) -> F:
        if name in _entries:
            raise ValueError(f"a strategy named {name!r} is registered already")
        fields: dict[str, Any] = {
            p.name: (p.annotation, ... if p.default is p.empty else p.default)
            for p in inspect.signature(run, eval_str=True).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        options = create_model(f"{name}_options", __config__=ConfigDict(extra="forbid", strict=True), **fields)
        _entries[name] = Entry(
            name, run, paper, scored or needs_prm, needs_prm, continues, whole or formed, formed, options
        )
        return run

    return register


@cache
def _load() -> None:
    # By name, because the files of the package import this one.
    package = import_module("strategies")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            import_module(f"{package.__name__}.{module.name}")
    for point in entry_points(group="tts_server.strategies"):
        before = dict(_entries)
        try:
            point.load()
        except (Exception, SystemExit) as error:
            _entries.clear()
            _entries.update(before)
            source = point.dist.name if point.dist else "an unknown package"
            why = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("strategies: %s of %s is left out: %s does not load: %s", point.name, source, point.value, why)


def registry() -> dict[str, Entry]:
    """Every known strategy by name, sorted."""
    _load()
    return dict(sorted(_entries.items()))


def get(name: str) -> Entry:
    """The strategy `name`.

    Raises:
        KeyError: there is none of that name.
    """
    _load()
    return _entries[name]
