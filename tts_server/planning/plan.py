"""Request to task, strategy and budget."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

import strategies
from prm import ProcessRewardModel
from strategies.allocation.policy_table import InUse
from strategies.core.account import Account, Budget
from strategies.core.contracts import Engine, Event, Task
from strategies.core.latency import Latencies
from strategies.core.metered import MeteredEngine, MeteredPRM
from strategies.core.plain_words import reason
from strategies.core.search_events import Outcome, anytime, watched
from tts_server.admission.engine import AdmittedEngine
from tts_server.admission.queue import Flow
from tts_server.config import BudgetConfig, Preset
from tts_server.engines.base import ServedEngine
from tts_server.errors import InvalidRequest, ModelNotFound, UnsupportedParameter, shown
from tts_server.forms.form import Form, FormedEngine
from tts_server.planning.service import Service
from tts_server.planning.task import form_of, refuse_unfit, task_of
from tts_server.planning.thought_opening import OpenedEngine
from tts_server.schema.chat import TTS, ChatRequest, SampledRequest

Number = TypeVar("Number", int, float)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, ready to run."""

    strategy: str
    choices: int
    form: Form | None
    """Of the answer, where the request fixes it."""
    account: Account
    run: Callable[[], AsyncGenerator[Event, None]]
    task: Task
    options: Mapping[str, Any]
    """The strategy's, complete."""
    prm: str | None = None
    """The reward model's name, where there is one."""
    outcome: Outcome = field(default_factory=Outcome)
    """What has come of it so far."""


@dataclass(frozen=True, slots=True)
class Approach:
    """How a request is answered, whatever it asks."""

    entry: strategies.Entry
    options: Mapping[str, Any]
    prm: ProcessRewardModel | None
    budget: BudgetConfig
    """What the request asks for."""
    engine: ServedEngine
    flow: Flow | None = None
    """The request's place in the queue for the engine; without one its calls wait for nobody."""
    latencies: Latencies = field(default_factory=Latencies)
    policy: InUse | None = None

    def plan(self, task: Task, form: Form | None, limit: BudgetConfig, started: float | None = None) -> Plan:
        """The approach to one task; `limit` is the most that it may spend, and `started` when that began, if not now.

        Raises:
            InvalidRequest: more answers are asked for than may be sampled.
        """
        if limit.max_samples is not None and task.choices > limit.max_samples:
            raise InvalidRequest(f"n is at most {limit.max_samples} on this server, got {task.choices}", param="n")
        prm = self.prm.name if self.prm else None
        account = Account(
            budget_of(self.budget, limit),
            prompt=task.prompt,
            started=started,
            latency=self.latencies.of(prm),
            policy=self.policy,
        )

        outcome = Outcome()

        def run() -> AsyncGenerator[Event, None]:
            metered = MeteredPRM(self.prm, account) if self.prm else None
            engine = engine_for(self.engine, account, form, self.flow)
            events = anytime(self.entry.run(task, engine, metered, account, **self.options), account)
            return watched(events, account, outcome)

        return Plan(self.entry.name, task.choices, form, account, run, task, self.options, prm, outcome)


def plan(request: ChatRequest, service: Service, flow: Flow | None = None) -> Plan:
    """What to do for a request.

    Raises:
        APIError: the model or strategy is not known, an option is wrong, or the engine cannot do it.
    """
    approach = approach_of(request, service, flow)
    form = form_of(request, service)
    return approach.plan(task_of(request, form, service.engine), form, service.settings.max_request)


def approach_of(request: SampledRequest, service: Service, flow: Flow | None = None) -> Approach:
    """The strategy that a request asks for, with its options, reward model and budget.

    Raises:
        APIError: the model or strategy is not known, an option is wrong, or the engine cannot do it.
    """
    if request.model_extra:
        log.debug("fields without effect: %s", shown(", ".join(sorted(request.model_extra))))
    preset = choose(request, service)
    entry = strategies.registry()[preset.strategy]
    if entry.continues and not service.engine.continues:
        raise UnsupportedParameter(
            f"the strategy {entry.name!r} continues from token ids, which the engine of {service.engine.model!r} "
            "does not take",
            param="tts.strategy",
        )
    options = check_options(entry, preset.options, service.settings.max_request.max_samples)
    prm = reward_model(preset.prm, entry, service)
    refuse_unfit(entry, request)
    if request.cache_salt and prm:
        raise UnsupportedParameter(
            f"cache_salt goes with no reward model, and the strategy {entry.name!r} uses {prm.name!r}, whose cache has "
            "no salt",
            param="cache_salt",
        )
    return Approach(entry, options, prm, preset.budget, service.engine, flow, service.latencies, service.policy)


def engine_for(engine: ServedEngine, account: Account, form: Form | None, flow: Flow | None) -> Engine:
    """The engine as a request's strategy sees it: a call waits for its turn and is metered, thoughts are marked and
    samples read in a form.
    """
    admitted = AdmittedEngine(OpenedEngine(engine) if engine.thinks else engine, flow)
    metered = MeteredEngine(admitted, account)
    return FormedEngine(metered, form) if form else metered


def choose(request: SampledRequest, service: Service) -> Preset:
    """The preset that the model's alias, `tts`, the effort or the server's default names, with `tts` laid over it."""
    tts = request.tts or TTS()
    alias = alias_of(request.model, service)
    if tts.strategy is not None and tts.strategy not in strategies.registry():
        known = ", ".join(strategies.registry())
        raise InvalidRequest(f"unknown strategy {shown(tts.strategy)}; known: {known}", param="tts.strategy")
    settings = service.settings
    effort = settings.efforts[request.reasoning_effort] if request.reasoning_effort else None
    base = named(alias or tts.strategy or effort or settings.default_preset, service)
    if tts.strategy not in (None, base.strategy):
        raise InvalidRequest(
            f"the model {request.model!r} stands for the strategy {base.strategy!r}, but tts.strategy is "
            f"{tts.strategy!r}",
            param="tts.strategy",
        )
    if request.tts is None:
        return base
    budget = base.budget.model_copy(update=tts.budget.model_dump(exclude_none=True) if tts.budget else {})
    options = {**base.options, **given(tts.options, strategies.registry()[base.strategy])}
    return Preset.model_validate({**options, "strategy": base.strategy, "budget": budget, "prm": tts.prm or base.prm})


def given(options: Mapping[str, Any], entry: strategies.Entry) -> dict[str, Any]:
    """The options without those whose null means that they are not given; some options take null as a value."""
    known = entry.options.model_fields
    return {
        name: value
        for name, value in options.items()
        if value is not None or name not in known or type(None) in get_args(known[name].annotation)
    }


def named(name: str, service: Service) -> Preset:
    """The preset or strategy of this name; a preset hides a strategy of the same name."""
    return service.settings.presets.get(name) or Preset(strategy=name)


def alias_of(model: str, service: Service) -> str | None:
    """What stands behind the `@` of a served model's name.

    Raises:
        ModelNotFound: neither the model nor an alias of it.
    """
    if model == service.engine.model:
        return None
    known = model_ids(service)
    if model not in known:
        raise ModelNotFound(model, known)
    return model.removeprefix(f"{service.engine.model}@")


def model_ids(service: Service) -> list[str]:
    """The model and its aliases, one for each preset and strategy."""
    model = service.engine.model
    names = {**service.settings.presets, **strategies.registry()}
    return [model, *(f"{model}@{name}" for name in sorted(names))]


def check_options(entry: strategies.Entry, options: dict[str, Any], max_samples: int | None) -> dict[str, Any]:
    """The strategy's options, typed and complete."""
    try:
        checked: BaseModel = entry.options.model_validate(options)
    except ValidationError as error:
        raise wrong_option(entry, error) from None
    n = getattr(checked, "n", None) if "n" in entry.options.model_fields else None
    if n is not None and max_samples is not None and n > max_samples:
        raise InvalidRequest(f"tts.n is at most {max_samples} on this server, got {n}", param="tts.n")
    return {name: getattr(checked, name) for name in entry.options.model_fields}


def wrong_option(entry: strategies.Entry, error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    field = ".".join(["tts", *map(str, first["loc"])])
    if first["type"] == "extra_forbidden":
        allowed = ", ".join([*entry.options.model_fields, "strategy", "budget", "prm", "return_candidates"])
        return InvalidRequest(
            f"unknown option {shown(field)} of strategy {entry.name!r}; allowed: {allowed}", param=field
        )
    return InvalidRequest(f"{field}: {reason(first)}, got {shown(first['input'])}", param=field)


def reward_model(name: str | None, entry: strategies.Entry, service: Service) -> ProcessRewardModel | None:
    """The reward model that scores this request; None where none is loaded."""
    if name is not None and not entry.scored:
        raise InvalidRequest(f"the strategy {entry.name!r} uses no reward model", param="tts.prm")
    if name is not None and name not in service.prms:
        known = ", ".join(service.prms) or "none is loaded"
        raise InvalidRequest(f"unknown reward model {shown(name)}; known: {known}", param="tts.prm")
    wanted = name or service.default_prm
    return service.prms[wanted] if wanted and entry.scored else None


def budget_of(asked: BudgetConfig, limit: BudgetConfig) -> Budget:
    """What was asked for, within what the server allows."""

    def least(*values: Number | None) -> Number | None:
        return min((v for v in values if v is not None), default=None)

    return Budget(
        max_samples=least(asked.max_samples, limit.max_samples),
        max_tokens=least(asked.max_tokens, limit.max_tokens),
        max_prm_tokens=least(asked.max_prm_tokens, limit.max_prm_tokens),
        deadline_s=least(asked.deadline_s, limit.deadline_s),
    )
