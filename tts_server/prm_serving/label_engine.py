"""A language model's labels read by an engine: one generated token after each step, of which two logprobs are told."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from prm import OnTokens, PRMError
from prm.families.contract import LabelTokens, Layout
from strategies.core.concurrency import pooled
from strategies.core.contracts import Engine, Prompt, Sampling, TokenIds
from tts_server.engines.base import ServedEngine
from tts_server.errors import APIError
from tts_server.prm_serving.judge_engine import label_share, sampled

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 256
"""Step ends that one call asks for at once."""


class EngineReader:
    """A backend of the families with `LabelTokens`, on an engine that takes token ids.

    Each step end is a request whose prompt ends there. They are sent in order, so that the engine's prefix cache
    serves each all but its own step.

    Args:
        engine: what answers.
        labels: the family's head.
        owned: the engine to start and to close with this backend; None where its owner does.
    """

    def __init__(self, engine: Engine, labels: LabelTokens, owned: ServedEngine | None = None) -> None:
        self._engine = engine
        self._labels = labels
        self._owned = owned

    @property
    def max_len(self) -> int:
        return (self._engine.max_model_len or 1) - 1

    async def start(self) -> None:
        """Starts the engine if it is owned.

        Raises:
            PRMError: the engine takes no token ids.
        """
        if self._owned:
            await self._owned.start()
        if not self._engine.continues:
            raise PRMError("an engine that takes no token ids cannot score; a reward model needs one of its own")

    async def close(self) -> None:
        if self._owned:
            await self._owned.close()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """See `prm.families.contract.Backend`."""

        async def ask(prefix: TokenIds) -> float:
            return await label_share(self._engine, prefix, (self._labels.right,), (self._labels.wrong,), on_tokens)

        prefixes = [layout.token_ids[: end + 1] for layout in layouts for end in layout.ends]
        scores = iter(await pooled(_guarded(ask), prefixes, AT_ONCE))
        return [tuple(next(scores) for _ in layout.ends) for layout in layouts]


class EngineWriter:
    """Generates a generative reward model's critiques on an engine that takes token ids; see `prm.generative.Write`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def __call__(
        self,
        prompts: Sequence[TokenIds],
        stops: Sequence[Sequence[str]],
        max_tokens: int,
        *,
        on_tokens: OnTokens | None = None,
    ) -> list[str]:
        async def write(both: tuple[TokenIds, Sequence[str]]) -> str:
            prompt, stop = both
            sampling = Sampling(max_tokens=max_tokens, temperature=0.0, stop=tuple(stop))
            return (await sampled(self._engine, Prompt(token_ids=prompt), sampling, on_tokens)).text

        return await pooled(_guarded(write), list(zip(prompts, stops, strict=True)), AT_ONCE)


def _guarded(call: Callable[[T], Awaitable[R]]) -> Callable[[T], Awaitable[R]]:
    """The same call, whose unexpected failures are the reward model's."""

    async def guarded(item: T) -> R:
        try:
            return await call(item)
        except (APIError, PRMError):
            raise
        except Exception as error:
            raise PRMError(f"the engine of the reward model failed: {error}") from error

    return guarded
