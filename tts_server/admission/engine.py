"""The engine as requests see it: each call waits for its turn. Strategies and reward models know nothing of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial

from strategies.core.contracts import Chunk, Engine, Prompt, Sampling
from strategies.core.engine_wrapper import EngineWrapper
from tts_server.admission.queue import Flow
from tts_server.admission.split_call import in_parts

# A reward model may run on the policy's engine, and its contract knows no requests: no argument can carry this there.
FLOW: ContextVar[Flow | None] = ContextVar("tts_server.flow", default=None)
"""The request in whose course a reward model is asked; what runs outside of one, as a self-test, waits for nobody."""


class AdmittedEngine(EngineWrapper):
    """An engine whose calls wait for their request's turn.

    Where there is no room for all n samples they are asked for in parts, so that others have their turns between them:
    then n samples of one prompt are several engine requests. With a seed they are one all the same, for the place of a
    sample in its call is part of its seed.

    Args:
        engine: what generates.
        flow: the request's place in the queue; without one, that of the request in whose course a call is made.
    """

    def __init__(self, engine: Engine, flow: Flow | None = None) -> None:
        super().__init__(engine)
        self._flow = flow

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        flow = self._flow or FLOW.get()
        if flow is None:
            return self._engine.generate(prompt, sampling, n)
        if n == 1 or sampling.seed is not None or flow.has_room(n):
            return _in_turn(flow, self._engine, prompt, sampling, n)
        return in_parts(partial(_in_turn, flow, self._engine, prompt, sampling), flow.parts(n))


async def _in_turn(
    flow: Flow, engine: Engine, prompt: Prompt, sampling: Sampling, n: int
) -> AsyncGenerator[Chunk, None]:
    permit = await flow.take(n)
    try:
        async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                permit.count(chunk)
                yield chunk
                permit.resume()
    finally:
        permit.close()
