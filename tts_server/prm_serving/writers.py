"""Generative reward models on an engine: the policy's, one of their own, or an upstream's."""

from typing import Any

from prm.generative import GenerativePRM, labels
from strategies.core.contracts import Engine
from tts_server.admission.engine import AdmittedEngine
from tts_server.config import DEFAULT_MODEL, ConfigError, Settings
from tts_server.engines.base import ServedEngine
from tts_server.prm_serving.label_engine import EngineReader, EngineWriter
from tts_server.prm_serving.models import has_gpu, tokenizer, vllm_args
from tts_server.prm_serving.source import Source
from tts_server.weights.catalog import resolve


def generative(source: Source, settings: Settings, policy: ServedEngine) -> GenerativePRM:
    """A generative reward model that is not started.

    Raises:
        ConfigError: there is no tokenizer for it on this machine.
    """
    if not source.model:
        if settings.engine == "fake":
            raise ConfigError("prm: the engine 'fake' writes no critiques, so 'generative' needs a model of its own")
        words = tokenizer(str(resolve(settings.model or DEFAULT_MODEL)))
        return _generative(source, words, AdmittedEngine(policy), None)
    path = str(resolve(source.model))
    own = _engine(path, source, settings)
    return _generative(source, tokenizer(path), own, own)


def _generative(source: Source, words: Any, engine: Engine, owned: ServedEngine | None) -> GenerativePRM:
    reader = EngineReader(engine, labels(words), owned)
    return GenerativePRM(words, EngineWriter(engine), reader, source.name)


def _engine(path: str, source: Source, settings: Settings) -> ServedEngine:
    """An engine of the reward model's own."""
    if settings.prm_upstream:
        from tts_server.engines.openai_http import OpenAIEngine  # noqa: PLC0415

        key = settings.prm_upstream_api_key
        return OpenAIEngine(settings.prm_upstream, name=source.name, api_key=key.get_secret_value() if key else None)
    if settings.prm_backend == "vllm" or (settings.prm_backend == "auto" and has_gpu()):
        from tts_server.engines.vllm import VLLMEngine  # noqa: PLC0415

        args = vllm_args(settings.prm_args)
        return VLLMEngine(path, name=source.name, max_model_len=settings.prm_max_model_len, args=args)
    from tts_server.engines.transformers import TransformersEngine  # noqa: PLC0415

    return TransformersEngine(path, name=source.name, max_model_len=settings.prm_max_model_len, args=settings.prm_args)
