"""The registry: every strategy by its name, with what is derived from its signature."""

import inspect
import logging
import pkgutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import cache, wraps
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, create_model

from prm import ProcessRewardModel
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Refused, Task
from strategies.core.options import PROMPTING, refuse_choices, refuse_logprobs, scorer
from strategies.core.prompts import conversation, prompted

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
    chat: bool
    """Whether it goes on with a conversation, and so refuses a prompt that is none."""
    edits: bool
    """Whether it changes what the model says, so that its answers have no logprobs of their own."""
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
    chat: bool = False,
    edits: bool = False,
) -> Callable[[F], F]:
    """Registers an async generator of events as the strategy `name`; see `Entry` for the properties.

    Its keywords are its options. Each strategy has the options `system_prompt` and `examples` as well, which are
    applied to the task that it gets, unless they are among its keywords. What its properties and its option `n` do not
    allow is refused before it begins.

    Raises:
        ValueError: the name is taken.
    """

    def register(run: F) -> F:
        if name in _entries:
            raise ValueError(f"a strategy named {name!r} is registered already")
        own: dict[str, Any] = {
            p.name: (p.annotation, ... if p.default is p.empty else p.default)
            for p in inspect.signature(run, eval_str=True).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        shared = {option: field for option, field in PROMPTING.items() if option not in own}
        config = ConfigDict(extra="forbid", strict=True)
        options = create_model(f"{name}_options", __config__=config, **own, **shared)

        @wraps(run)
        def begin(
            task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account, **given: Any
        ) -> AsyncGenerator[Event, None]:
            prompting = {option: given.pop(option, None) for option in shared}
            n = given.get("n", own["n"][1] if "n" in own else None)
            try:
                _check(entry, task, prm, n)
            except Refused as refusal:
                return _refused(refusal)
            events: AsyncGenerator[Event, None] = run(prompted(task, **prompting), engine, prm, account, **given)
            return events

        entry = _entries[name] = Entry(
            name, begin, paper, scored or needs_prm, needs_prm, continues, whole or formed, formed, chat, edits, options
        )
        return run

    return register


def _check(entry: Entry, task: Task, prm: ProcessRewardModel | None, n: object) -> None:
    """Raises Refused where a strategy cannot do what a task asks for."""
    if isinstance(n, int):
        refuse_choices(task, n)
    if entry.needs_prm:
        scorer(prm)
    if entry.edits:
        refuse_logprobs(task)
    if entry.chat:
        conversation(task)


async def _refused(refusal: Refused) -> AsyncGenerator[Event, None]:
    """A search that is refused as soon as its first event is asked for."""
    raise refusal
    yield


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
