"""Templates that open a thought: what the model says then begins inside it, and its text has to tell so."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds
from strategies.core.engine_wrapper import EngineWrapper
from tts_server.engines.base import ServedEngine


class OpenedEngine(EngineWrapper):
    """An engine that puts the thought's opening, which the prompt ends with, before what the model says.

    It is text without tokens, so nothing that is counted changes. A prompt that it encoded is known by its token ids;
    what continues one further is not begun again.
    """

    def __init__(self, engine: ServedEngine) -> None:
        super().__init__(engine)
        self._served = engine
        self._openings: dict[TokenIds, str] = {}

    async def encode(self, prompt: Prompt) -> TokenIds:
        ids = await self._engine.encode(prompt)
        if not prompt.token_ids and (opening := await self._served.opening(prompt, Sampling())):
            self._openings[ids] = opening
        return ids

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if prompt.token_ids:
            opening = self._openings.get(prompt.token_ids, "")
        else:
            opening = await self._served.opening(prompt, sampling)
        begun: set[int] = set()
        async with aclosing(self._engine.generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                if opening and chunk.index not in begun:
                    begun.add(chunk.index)
                    yield replace(chunk, text=opening + chunk.text)
                else:
                    yield chunk
