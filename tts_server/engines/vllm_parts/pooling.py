"""A model with a classification head on vLLM in this process: numbers at token positions in place of text.

Knows nothing of steps or scores. vLLM leaves its prefix cache unread for a request that pools each token, because the
rows of cached tokens are not there to be returned. Here it is read, and whoever asks is told the rows that are there:
those of the tokens after the cached ones, of which the prompt's last is always one.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from strategies.core.contracts import TokenIds
from tts_server.engines.vllm import VLLMEngine
from tts_server.engines.vllm_parts import wire as vllm_wire

_TASK: Final = "token_classify"


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a prompt's tokens were pooled to."""

    rows: Sequence[Sequence[float]]
    """The head's values, before any activation, at the prompt's last `len(rows)` tokens."""
    computed: int
    """Tokens that did not come from the prefix cache."""


class VLLMPooler(VLLMEngine):
    """Runs a classifier with vLLM; it generates nothing."""

    def __init__(
        self,
        model_path: str,
        *,
        name: str,
        max_model_len: int | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """As for VLLMEngine."""
        # Every token is pooled: a pooling by step would shut the prefix cache out.
        pooling = {"runner": "pooling", "pooler_config": {"task": _TASK, "tok_pooling_type": "ALL"}}
        super().__init__(model_path, name=name, max_model_len=max_model_len, args={**pooling, **(args or {})})

    async def pool(self, token_ids: TokenIds) -> Pooled:
        """The rows of the prompt's tokens that were not cached.

        Raises:
            EngineUnavailable: the engine is starting, closing or dead.
            InvalidRequest: vLLM refuses the prompt.
        """
        if not self.healthy:
            raise self._unavailable()
        llm, prompt = self._llm, {"type": "token", "prompt_token_ids": list(token_ids)}
        try:
            async with aclosing(llm.encode(prompt, self._pooling(), uuid4().hex)) as outputs:
                output = [output async for output in outputs][-1]
        except vllm_wire.client_errors() as error:
            raise vllm_wire.refusal(error) from error
        except Exception as error:
            if not llm.errored and self._llm is llm:
                raise
            raise self._unavailable() from error
        return Pooled(output.outputs.data.tolist(), len(token_ids) - (output.num_cached_tokens or 0))

    def _pooling(self) -> Any:
        from vllm import PoolingParams  # noqa: PLC0415

        return PoolingParams(task=_TASK, use_activation=False, skip_reading_prefix_cache=False)
