"""Classification heads read by vLLM in this process: a request a layout, of which the new steps are computed."""

from collections.abc import Sequence
from functools import partial

from prm import OnTokens, PRMError
from prm.families.contract import Head, Layout
from strategies.core.concurrency import pooled
from strategies.core.contracts import TokenIds
from tts_server.engines.vllm_parts.pooling import VLLMPooler
from tts_server.errors import APIError
from tts_server.prm_serving.heads import score, width

AT_ONCE = 256
"""Layouts that one call asks for at once."""


class PoolingReader:
    """A backend of the families with a classification head.

    Args:
        pooler: started and closed with this backend.
        head: the family's.
    """

    def __init__(self, pooler: VLLMPooler, head: Head) -> None:
        width(head)
        self._pooler = pooler
        self._head = head

    @property
    def max_len(self) -> int:
        return self._pooler.max_model_len or 0

    async def start(self) -> None:
        await self._pooler.start()

    async def close(self) -> None:
        await self._pooler.close()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """See `prm.families.contract.Backend`."""
        return await pooled(partial(self._read, on_tokens), layouts, AT_ONCE)

    async def _read(self, on_tokens: OnTokens | None, layout: Layout) -> tuple[float, ...]:
        rows = await self._rows(layout.token_ids, on_tokens)
        first = len(layout.token_ids) - len(rows)
        # Of an end that was cached the row is not there; the last token of a prompt is never taken from the cache.
        return tuple(
            [
                score(self._head, rows[end - first] if end >= first else (await self._last(layout, end, on_tokens)))
                for end in layout.ends
            ]
        )

    async def _last(self, layout: Layout, end: int, on_tokens: OnTokens | None) -> Sequence[float]:
        return (await self._rows(layout.token_ids[: end + 1], on_tokens))[-1]

    async def _rows(self, token_ids: TokenIds, on_tokens: OnTokens | None) -> Sequence[Sequence[float]]:
        try:
            found = await self._pooler.pool(token_ids)
        except APIError:
            raise
        except Exception as error:
            raise PRMError(f"vLLM gave no score: {error}") from error
        if on_tokens:
            on_tokens(found.computed)
        return found.rows
