"""A language model's labels read by an engine: one generated token after each step, of which two logprobs are told."""

from collections.abc import Sequence
from functools import partial

from prm import OnTokens, PRMError
from prm.family import LabelTokens, Layout
from strategies.base import TokenIds
from tts_server.engines.base import ServedEngine
from tts_server.errors import APIError
from tts_server.pool import pooled
from tts_server.verifier import Generates, label_share

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

    def __init__(self, engine: Generates, labels: LabelTokens, owned: ServedEngine | None = None) -> None:
        self._engine = engine
        self._labels = labels
        self._owned = owned

    @property
    def max_len(self) -> int:
        return (self._engine.max_model_len or 1) - 1

    async def start(self) -> None:
        if self._owned:
            await self._owned.start()

    async def close(self) -> None:
        if self._owned:
            await self._owned.close()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """See `prm.family.Backend`."""
        prefixes = [layout.token_ids[: end + 1] for layout in layouts for end in layout.ends]
        scores = iter(await pooled(partial(self._ask, on_tokens), prefixes, AT_ONCE))
        return [tuple(next(scores) for _ in layout.ends) for layout in layouts]

    async def _ask(self, on_tokens: OnTokens | None, prefix: TokenIds) -> float:
        try:
            return await label_share(self._engine, prefix, self._labels.right, self._labels.wrong, on_tokens)
        except (APIError, PRMError):
            raise
        except Exception as error:
            raise PRMError(f"the engine gave no score: {error}") from error
