"""The base of engines that stand before another one."""

from collections.abc import AsyncGenerator

from strategies.core.contracts import Chunk, Engine, Prompt, Sampling, TokenIds


class EngineWrapper:
    """An engine that passes everything through to another one; a subclass states only what it changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def model(self) -> str:
        return self._engine.model

    @property
    def max_model_len(self) -> int | None:
        return self._engine.max_model_len

    @property
    def continues(self) -> bool:
        return self._engine.continues

    async def encode(self, prompt: Prompt) -> TokenIds:
        return await self._engine.encode(prompt)

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        return self._engine.generate(prompt, sampling, n)
