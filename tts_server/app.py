"""The composition root: the only place that sees everything."""

import importlib
import logging
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import strategies
from prm import ProcessRewardModel
from strategies.core.plain_words import sentence
from tts_server import __version__
from tts_server.admission.interactive_load import Load
from tts_server.admission.keys import read_keys
from tts_server.admission.queue import Admission
from tts_server.admission.shutdown import Drain
from tts_server.app_state import AppState
from tts_server.batches import Batches
from tts_server.config import DEFAULT_MODEL, ConfigError, Settings
from tts_server.engines.base import ServedEngine
from tts_server.errors import InvalidRequest
from tts_server.forms.call_formats import FORMATS
from tts_server.middleware.body import Body
from tts_server.middleware.endpoints import Endpoints
from tts_server.middleware.error_responses import RESPONSES, handlers
from tts_server.middleware.gate import Gate
from tts_server.middleware.stack import Auth, Entry
from tts_server.observe.metrics.counts import Metrics
from tts_server.observe.metrics.exposition import Shown
from tts_server.observe.traces.store import Traces
from tts_server.planning.plan import check_options
from tts_server.planning.policy_tables import policy_of
from tts_server.planning.service import Service
from tts_server.prm_serving.plugins import plugged_in, plugins
from tts_server.prm_serving.source import Source, parse
from tts_server.raw_output import captured
from tts_server.routes import ROUTERS, routes

if TYPE_CHECKING:
    from tts_server.observe.otel.spans import Tracing

log = logging.getLogger(__name__)

LIVE = 256
"""Samples that grow at once in an engine that does not say how many it can."""
FORM_BYTES = 2**16
"""What a form has beside its file."""
SHARED_HEADERS = (
    "x-request-id",
    "retry-after",
    "x-should-retry",
    *(f"x-ratelimit-{each}-{of}" for each in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
)
"""What a page of another origin may read of an answer, beside its body."""
NEEDS = {"vllm": ["vllm"], "transformers": ["torch", "transformers"]}
"""What an engine imports, looked for before any weights are fetched."""
SHARE = 0.5
"""Of a GPU's memory: what vLLM gets for the policy beside a reward model, unless `engine_args` say another share."""


def create_app(
    engine: ServedEngine,
    prms: Sequence[ProcessRewardModel] = (),
    settings: Settings | None = None,
    tracing: "Tracing | None" = None,
) -> FastAPI:
    """The server's routes around an engine.

    Args:
        engine: whoever runs the app starts and closes it.
        prms: the reward models that requests may name; the first is the default.
        settings: the defaults if not given.
        tracing: makes spans, where some are wanted; whoever runs the app closes it.

    Raises:
        ConfigError: the settings name a strategy, an option or a key file that is not there.
    """
    settings = settings or Settings()
    check_presets(settings, [prm.name for prm in prms])
    policy = policy_of(settings, engine.model, [prm.name for prm in prms])
    service = Service(engine, {prm.name: prm for prm in prms}, settings, created=int(time.time()), policy=policy)

    endpoints = Endpoints(routes())
    keys, load, counts = read_keys(settings), Load(), Metrics()
    drain, admission = Drain(), Admission(settings.max_live_samples or LIVE, settings.max_waiting_samples)
    app = FastAPI(
        title="tts-server",
        version=__version__,
        summary="An OpenAI-compatible server that spends inference compute on better answers.",
        # Outermost first.
        middleware=[
            *_shared(settings),
            Middleware(Entry, endpoints=endpoints, metrics=counts),
            Middleware(Auth, keys=keys),
            *_traced(tracing),
            Middleware(
                Body,
                limit=settings.max_body_bytes,
                upload_limit=settings.batch.max_file_bytes + FORM_BYTES,
            ),
            Middleware(
                Gate, limit=settings.max_requests, limits=keys.limits, load=load, admission=admission, drain=drain
            ),
        ],
        exception_handlers=handlers(endpoints),
        responses=RESPONSES,
        redirect_slashes=False,
    )
    for router in ROUTERS:
        app.include_router(router)
    traces = Traces(settings)
    app.state.server = AppState(
        service=service,
        keys=keys,
        admission=admission,
        drain=drain,
        traces=traces,
        usage=counts.usage_of_owners,
        metrics=Shown(counts, engine, prms, admission, traces),
        batches=Batches(app, engine, load, drain, settings, endpoints.paths, scored=bool(prms)),
        tracing=tracing,
    )
    return app


def _shared(settings: Settings) -> list[Middleware]:
    """What lets pages of other origins ask; without the setting, browsers do not."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            # Keys come as a header, which a page has to know; cookies mean nothing here.
            allow_headers=["*"],
            expose_headers=SHARED_HEADERS,
            # A page of the web may ask a server of this machine or network, where its origin is named.
            allow_private_network=True,
        )
    ]


def _traced(tracing: "Tracing | None") -> list[Middleware]:
    if tracing is None:
        return []
    from tts_server.middleware.span import Traced  # noqa: PLC0415

    return [Middleware(Traced, tracing=tracing)]


def check_presets(settings: Settings, prms: Sequence[str]) -> None:
    """Raises ConfigError unless every preset, effort and the default stand for a strategy with right options."""
    known = strategies.registry()
    for name, preset in settings.presets.items():
        if preset.strategy not in known:
            raise ConfigError(
                f"presets.{name}.strategy: unknown strategy {preset.strategy!r}; known: {', '.join(known)}"
            )
        try:
            check_options(known[preset.strategy], preset.options, None)
        except InvalidRequest as error:
            raise ConfigError(f"presets.{name}: {error.message.replace('tts.', '')}") from None
        if preset.prm is not None and preset.prm not in prms:
            loaded = ", ".join(prms) or "none"
            raise ConfigError(f"presets.{name}.prm: unknown reward model {preset.prm!r}; loaded: {loaded}")
    names = {**settings.presets, **known}
    for key, name in [
        *((f"efforts.{e}", p) for e, p in settings.efforts.items()),
        ("default_preset", settings.default_preset),
    ]:
        if name not in names:
            raise ConfigError(f"{key}: unknown preset or strategy {name!r}; known: {', '.join(names)}")


def build_engine(settings: Settings) -> ServedEngine:
    """The configured engine, not started yet; `auto` takes vLLM where it imports, else Transformers, and says why.

    Raises:
        ConfigError: nothing here can generate.
    """
    kind = settings.engine if settings.engine != "auto" else choose_engine()
    if kind != "vllm" and (parser := _foreign_parser(settings)):
        raise ConfigError(
            f"tool_parser: {parser!r} is not read here, which are {', '.join(FORMATS)}; parsers of vLLM's go with the "
            f"engine vllm, and an upstream has its own; this engine is {kind}"
        )
    if kind == "fake":
        from tts_server.engines.fake import FakeEngine  # noqa: PLC0415

        name, limit = settings.served_name or "fake", settings.max_model_len or 32768
        try:
            return FakeEngine(model=name, max_model_len=limit, **settings.engine_args)
        except TypeError as error:
            raise ConfigError(f"engine_args: {sentence(error)}") from None
    if kind == "openai":
        return _build_upstreams(settings)
    if missing := [package for package in NEEDS[kind] if find_spec(package) is None]:
        raise ConfigError(
            f"engine: {kind} needs {' and '.join(missing)}, not installed here; in a checkout: "
            f"`make install`, or pip install '.[{kind}]'"
        )
    from tts_server.weights.catalog import resolve  # noqa: PLC0415

    model = settings.model or DEFAULT_MODEL
    name, path = settings.served_name or model, str(resolve(model))
    if kind == "vllm":
        from tts_server.engines.vllm import VLLMEngine  # noqa: PLC0415

        args = {**({"gpu_memory_utilization": SHARE} if _shares_gpu(settings) else {}), **settings.engine_args}
        parser = _foreign_parser(settings)
        return VLLMEngine(path, name=name, max_model_len=settings.max_model_len, args=args, tool_parser=parser)
    from tts_server.engines.transformers import TransformersEngine  # noqa: PLC0415

    return TransformersEngine(path, name=name, max_model_len=settings.max_model_len, args=settings.engine_args)


def _foreign_parser(settings: Settings) -> str | None:
    """The name of a tool parser that is none of this server's own."""
    return None if settings.tool_parser in ("auto", *FORMATS) else settings.tool_parser


def _build_upstreams(settings: Settings) -> ServedEngine:
    from tts_server.engines.openai_http import OpenAIEngine  # noqa: PLC0415
    from tts_server.engines.replicated import ReplicatedEngine  # noqa: PLC0415

    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    name, model = settings.served_name, settings.model
    try:
        if len(settings.upstream) > 1:
            return ReplicatedEngine(settings.upstream, name=name, upstream_model=model, api_key=key)
        return OpenAIEngine(settings.upstream[0], name=name, upstream_model=model, api_key=key)
    except ValueError as error:
        raise ConfigError(f"upstream: {error}") from None


def _shares_gpu(settings: Settings) -> bool:
    """Whether a reward model with weights of its own runs in this process, and there is a GPU."""
    from tts_server.prm_serving.models import has_gpu  # noqa: PLC0415

    elsewhere = settings.prm_upstream or settings.prm_backend == "http"
    return not elsewhere and any(source.has_weights for source in parse(settings.prm)) and has_gpu()


def choose_engine() -> str:
    """`vllm` or `transformers`, whichever can be imported first."""
    try:
        with captured():
            importlib.import_module("vllm")
    except ImportError as error:
        why = "vLLM is not installed" if find_spec("vllm") is None else f"vLLM does not import ({error})"
        if find_spec("transformers") is None or find_spec("torch") is None:
            raise ConfigError(
                f"engine: {why}, and neither is Transformers; install one, in a checkout by `make install` (for what "
                "this machine has), pip install '.[vllm]' (for a GPU) or '.[transformers]' (for any machine)"
            ) from None
        log.warning("engine: transformers, because %s", why)
        return "transformers"
    log.info("engine: vllm, because it is installed")
    return "vllm"


def build_prms(settings: Settings, engine: ServedEngine) -> list[ProcessRewardModel]:
    """The configured reward models, the default first; none of them is started.

    Raises:
        ConfigError: there is none of that name, or it cannot run.
    """
    sources = parse(settings.prm)
    if settings.prm_upstream and not any(source.has_weights for source in sources):
        raise ConfigError(f"prm_upstream: no reward model of prm = {settings.prm!r} has weights to run there")
    return [_build_prm(source, settings, engine) for source in sources]


def _build_prm(source: Source, settings: Settings, engine: ServedEngine) -> ProcessRewardModel:
    if source.kind == "fake":
        from prm.fake import FakePRM  # noqa: PLC0415

        try:
            return FakePRM(**settings.prm_args)
        except TypeError as error:
            raise ConfigError(f"prm_args: {sentence(error)}") from None
    if source.kind == "judge":
        from prm.judge import Judge  # noqa: PLC0415
        from tts_server.prm_serving.judge_engine import Verifier  # noqa: PLC0415

        return Judge(Verifier(engine))
    if source.kind in plugins():
        return plugged_in(source.kind, settings.prm_args)
    from tts_server.prm_serving.loading import load  # noqa: PLC0415

    return load(source, settings, engine)
