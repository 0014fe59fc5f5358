"""One call of vLLM's engine: its samples, read together."""

import asyncio
from typing import Any
from uuid import uuid4

from strategies.core.contracts import Chunk, Sampling, TokenIds
from tts_server.engines.vllm_parts import wire as vllm_wire
from tts_server.engines.vllm_parts.lora import LoRA


class Call:
    """One call's n engine requests, read together: those that one engine step fed wake the reader once."""

    def __init__(self, llm: Any, params: Any, sampling: Sampling, lora: LoRA | None) -> None:
        self.llm = llm
        self._lora = lora and lora.request
        self.wakeup = asyncio.Event()
        self.growing: dict[int, Any] = {}
        """The output queue of each sample that has not ended."""
        self._params = params
        self._sampling = sampling
        self._id = uuid4().hex
        self._begun: set[int] = set()
        self.ended: set[int] = set()

    @property
    def alive(self) -> bool:
        return not self.llm.errored

    async def begin(self, token_ids: TokenIds, n: int) -> None:
        try:
            for index in range(n):
                prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": list(token_ids)}
                if self._sampling.cache_salt:
                    prompt["cache_salt"] = self._sampling.cache_salt
                params = vllm_wire.with_seed(self._params, self._sampling.seed, index)
                queue = await self.llm.add_request(self._id, prompt, params, lora_request=self._lora)
                queue.ready = self.wakeup
                self.growing[index] = queue
        except vllm_wire.client_errors() as error:
            raise vllm_wire.refusal(error, self._sampling.structured) from error
        self.wakeup.set()  # what came before the queues shared it

    def drain(self) -> list[Chunk]:
        """Everything that is there, taken at once: a queue that is read clears the event that all of them share."""
        self.wakeup.clear()
        outputs = [(index, queue.get_nowait()) for index, queue in self.growing.items()]
        return [self._chunk(index, output) for index, output in outputs if output is not None]

    def _chunk(self, index: int, output: Any) -> Chunk:
        chunk = vllm_wire.chunk(index, output, self._sampling, first=index not in self._begun)
        self._begun.add(index)
        if chunk.finish_reason:
            del self.growing[index]
            self.ended.add(index)
        return chunk

    async def abort(self) -> None:
        """Ends what is still running; nothing if all samples have ended."""
        if self.alive:
            await self.llm.abort(self._id)
