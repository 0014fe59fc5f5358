"""Puts the reward models together that the configuration names: a family, a backend, and the test they have to pass."""

from prm import PRMError, ProcessRewardModel
from prm.backend.local import TransformersBackend
from prm.backend.reference import Weights, reference_scores
from prm.families.contract import Backend, Classes, Family, FamilyPRM, LabelTokens, Sigmoid
from strategies.core.plain_words import sentence
from tts_server.admission.engine import AdmittedEngine
from tts_server.config import ConfigError, PRMBackend, Settings
from tts_server.engines.base import ServedEngine
from tts_server.engines.vllm import VLLMEngine
from tts_server.engines.vllm_parts.pooling import VLLMPooler
from tts_server.prm_serving.label_engine import EngineReader
from tts_server.prm_serving.memory import Remembered
from tts_server.prm_serving.models import Model, find, has_gpu, vllm_args
from tts_server.prm_serving.pooling import PoolingReader
from tts_server.prm_serving.remote import RemoteReader
from tts_server.prm_serving.self_test import layouts_of, self_test
from tts_server.prm_serving.source import Source
from tts_server.prm_serving.writers import generative
from tts_server.upstream.client import Upstream
from tts_server.weights.catalog import CatalogError


class ServedPRM(FamilyPRM):
    """A reward model of a family with a lifetime."""

    async def start(self) -> None:
        await self.backend.start()

    async def close(self) -> None:
        await self.backend.close()


class CheckedPRM(ServedPRM):
    """A reward model that serves once it has passed its test.

    Args:
        family: the layout.
        backend: what reads it.
        name: what `tts.prm` calls it.
        weights: what a reference is computed from; None where there is to be none.
    """

    def __init__(self, family: Family, backend: Backend, name: str, weights: Weights | None) -> None:
        super().__init__(family, Remembered(backend), name)
        self._reader = backend
        self._weights = weights

    async def start(self) -> None:
        """Starts the backend.

        Raises:
            PRMError: it does not score as the model does.
        """
        # First, while there is memory for a second copy of the weights.
        reference = await reference_scores(self._weights, layouts_of(self.family)) if self._weights else None
        await super().start()
        await self_test(self.name, self.family, self._reader, reference)


def load(source: Source, settings: Settings, engine: ServedEngine) -> ProcessRewardModel:
    """A reward model that is not started.

    Args:
        source: which.
        settings: where it runs.
        engine: the policy's, which serves it too where it can.

    Raises:
        ConfigError: there is no such model, or it cannot run there.
    """
    try:
        if source.kind == "generative":
            return generative(source, settings, engine)
        model = find(source, settings.prm_separator)
    except (PRMError, CatalogError, ImportError, OSError, ValueError) as error:
        raise ConfigError(f"prm: {sentence(error)}") from error
    where = _where(model, settings, engine)
    if where == "transformers":
        return ServedPRM(model.family, _transformers(model, settings), source.name)
    known = settings.prm_reference and (where == "vllm" or model.is_local)
    backend = _http(model, settings) if where == "http" else _vllm(model, settings, engine)
    return CheckedPRM(model.family, backend, source.name, model.weights if known else None)


def _where(model: Model, settings: Settings, engine: ServedEngine) -> PRMBackend:
    """The backend that it runs on: the one of the settings, if there is one.

    Raises:
        ConfigError: it does not run there.
    """
    wanted = settings.prm_backend
    beside = model.adapter is not None and isinstance(engine, VLLMEngine) and engine.path == model.path
    if wanted == "auto" and settings.prm_upstream:
        return "http"
    if wanted == "auto":
        alone = model.adapter is None and model.runs_on_vllm and has_gpu()
        return "vllm" if beside or alone else "transformers"
    if wanted == "vllm" and not model.runs_on_vllm:
        kind = ", ".join(model.config.get("architectures") or ["no architecture"])
        raise ConfigError(
            f"prm_backend: vLLM does not run the family {model.family.name} ({kind}); use the backend transformers"
        )
    if wanted == "vllm" and model.adapter and not beside:
        raise ConfigError(
            f"prm: the adapter {model.adapter} belongs to {model.path}, which is not what a vLLM engine of this server "
            "serves; serve that model with the engine vllm, or use the backend transformers"
        )
    return wanted


def _transformers(model: Model, settings: Settings) -> Backend:
    args = {**settings.prm_args, **({"adapter": model.adapter} if model.adapter else {})}
    limit = settings.prm_max_model_len
    return TransformersBackend(model.path, model.config, model.family.head, max_len=limit, args=args)


def _http(model: Model, settings: Settings) -> Backend:
    url = (settings.prm_upstream or "").rstrip("/").removesuffix("/v1")
    key = settings.prm_upstream_api_key
    try:
        http = Upstream(url, api_key=key.get_secret_value() if key else None)
    except ValueError as error:
        raise ConfigError(f"prm_upstream: {error}") from error
    return RemoteReader(http, model.name, model.family.head)


def _vllm(model: Model, settings: Settings, engine: ServedEngine) -> Backend:
    limit, args = settings.prm_max_model_len, vllm_args(settings.prm_args)
    match model.family.head:
        case LabelTokens() as labels if model.adapter and isinstance(engine, VLLMEngine):
            return EngineReader(AdmittedEngine(engine.adapted(model.adapter)), labels)
        case LabelTokens() as labels:
            own = VLLMEngine(model.path, name=model.name, max_model_len=limit, args=args)
            return EngineReader(own, labels, own)
        case Classes() | Sigmoid() as head:
            return PoolingReader(VLLMPooler(model.path, name=model.name, max_model_len=limit, args=args), head)
