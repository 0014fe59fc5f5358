"""vLLM in this process: its asynchronous engine (V1), whose core is a child process.

Knows how to keep that child alive. Not how its arguments are chosen (`vllm_host`), nor how words are translated
(`vllm_wire`).

The n samples of one call are n engine requests under one request id: vLLM's own fan-out tells neither how much of the
prompt each of them found in the prefix cache, nor draws them from seeds that differ from those of other calls. The
scheduler gives blocks to the prefix cache when it schedules them, so they still prefill the prompt once.

A sample's token ids are whole tokens: where a stop string ends inside of one, the ids hold more than the text.
"""

import asyncio
import copy
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds
from strategies.core.engine_wrapper import EngineWrapper
from tts_server.engines.tokens.chat_template import ChatTemplate
from tts_server.engines.tokens.tokenizer import LocalTokenizer
from tts_server.engines.vllm_parts import host as vllm_host
from tts_server.engines.vllm_parts import wire as vllm_wire
from tts_server.engines.vllm_parts.call import Call
from tts_server.engines.vllm_parts.lora import LoRA, read_lora
from tts_server.engines.vllm_parts.restarts import Restarts
from tts_server.engines.vllm_parts.tools import VLLMFormat, check_name
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_RESTART_S = 30
"""About how long a restart takes; what a refused client is told to wait."""


class VLLMEngine:
    """Generates with vLLM.

    With a seed the same call gives the same samples, as far as the arithmetic does: vLLM's results depend in their
    last bits on what else is in the batch and on what was cached, and sooner or later a token falls on the other side.
    In float32 this is rare, in bfloat16 it is not.
    """

    continues = True
    constrains = True
    calls_itself = False

    def __init__(
        self,
        model_path: str,
        *,
        name: str,
        max_model_len: int | None = None,
        args: Mapping[str, Any] | None = None,
        tool_parser: str | None = None,
    ) -> None:
        """Loads nothing yet.

        Args:
            model_path: A local directory, or an owner/name of the hub.
            name: What clients call the model.
            max_model_len: Tokens of prompt and completion together; None is what the model and the memory allow.
            args: Further arguments of vLLM's AsyncEngineArgs; they win over this server's own.
            tool_parser: The one of vLLM's that reads the model's calls of tools, if they are not read here.
        """
        self.model = name
        self.max_model_len = max_model_len
        self.path = model_path
        self.call_format: VLLMFormat | None = None
        self._args = dict(args or {})
        self._tool_parser = tool_parser
        self._loras: list[LoRA] = []
        self._llm: Any = None
        self._processes: list[Any] = []
        self._template: ChatTemplate | None = None
        self._tokenizer: LocalTokenizer | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._restarts = Restarts()
        self._wakeups: set[asyncio.Event] = set()
        self._defaults: dict[str, Any] = {}
        self._takes_seeds = True
        self._constrains_thoughts = True

    @property
    def thinks(self) -> bool:
        return self._template is not None and self._template.thinks

    @property
    def tool_format(self) -> str | None:
        return self._template.tool_format if self._template else None

    @property
    def tokenizer(self) -> LocalTokenizer:
        if self._tokenizer is None:
            raise self._unavailable()
        return self._tokenizer

    def adapted(self, path: str) -> "AdaptedEngine":
        """This engine's model with the LoRA adapter of a directory; to be called before `start`.

        Raises:
            EngineUnavailable: there is no adapter that vLLM serves.
        """
        loras = [*self._loras, read_lora(path, len(self._loras) + 1)]
        ranks = {"max_loras": len(loras), "max_lora_rank": max(lora.rank for lora in loras)}
        self._args = {"enable_lora": True, **self._args, **ranks}
        self._loras = loras
        return AdaptedEngine(self, loras[-1])

    @property
    def healthy(self) -> bool:
        return self._llm is not None and not self._llm.errored

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""
        return self._restarts.count

    @property
    def given_up(self) -> bool:
        return self._supervisor is not None and self._supervisor.done() and not self._supervisor.cancelled()

    @property
    def slots(self) -> int | None:
        return self._llm.vllm_config.scheduler_config.max_num_seqs if self._llm else None

    async def start(self) -> None:
        """Loads the model and keeps watch over the engine.

        Raises:
            EngineUnavailable: vLLM is not installed, or cannot load the model, or has no such tool parser.
        """
        if self._tool_parser:
            await asyncio.to_thread(check_name, self._tool_parser)
        self._llm = llm = await self._launch()
        if self._tool_parser:
            self.call_format = VLLMFormat(self._tool_parser, llm.get_tokenizer())
        self._template = ChatTemplate(copy.deepcopy(llm.get_tokenizer()))
        self._tokenizer = LocalTokenizer(llm.get_tokenizer())
        self._defaults = llm.model_config.get_diff_sampling_param()
        self.max_model_len = llm.model_config.max_model_len
        self._takes_seeds = not vllm_host.splits_seeded_prefills(llm.vllm_config.scheduler_config)
        # With a reasoning parser vLLM lets the thought come to its end before it constrains anything.
        self._constrains_thoughts = not llm.vllm_config.structured_outputs_config.reasoning_parser
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._stop()

    async def encode(self, prompt: Prompt) -> TokenIds:
        if prompt.token_ids:
            return prompt.token_ids
        if self._template is None:
            raise self._unavailable()
        return await asyncio.to_thread(self._template.encode, prompt)

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        if self._template is None or (sampling.structured and self._constrains_thoughts):
            return ""
        return await asyncio.to_thread(self._template.opening, prompt)

    async def generate(
        self, prompt: Prompt, sampling: Sampling, n: int = 1, *, lora: LoRA | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """Streams n samples, if asked with an adapter; see `strategies.core.contracts.Engine`.

        Raises:
            ContextTooLong: the prompt leaves no room for a single token.
            InvalidRequest: a value that vLLM does not take.
            EngineUnavailable: the engine is starting, closing or dead.
        """
        if not self.healthy:
            raise self._unavailable()
        token_ids = await self.encode(prompt)
        call = Call(self._llm, self._params(sampling, len(token_ids)), sampling, lora)
        self._wakeups.add(call.wakeup)
        try:
            await call.begin(token_ids, n)
            while call.growing:
                for chunk in call.drain():
                    yield chunk
                if call.growing:
                    if not call.alive or self._llm is not call.llm:
                        raise self._unavailable()
                    await call.wakeup.wait()
        except Exception as error:
            if call.alive and not isinstance(error, EngineUnavailable):
                raise
            gone = self._unavailable()
            if not call.ended:
                raise gone from error
            for index in sorted({*range(n)} - call.ended):
                yield Chunk(index, finish_reason="error", error=gone)
        finally:
            self._wakeups.discard(call.wakeup)
            if self._llm is call.llm:
                await call.abort()

    def _params(self, sampling: Sampling, prompt_tokens: int) -> Any:
        limit = self.max_model_len or 0
        if prompt_tokens >= limit:
            raise ContextTooLong(prompt_tokens, limit)
        if sampling.seed is not None and not self._takes_seeds:
            raise InvalidRequest(
                "A seed is not taken: this engine splits long prefills, and on a CPU a seeded request would not "
                "survive that. Leave the seed out, or start the engine without chunked prefill.",
                param="seed",
            )
        return vllm_wire.sampling_params(sampling, self._defaults, limit - prompt_tokens)

    def _unavailable(self) -> EngineUnavailable:
        state = "restarting after a failure" if self._supervisor and not self._supervisor.done() else "not running"
        return EngineUnavailable(f"The engine of {self.model!r} is {state}; try again later.", _RESTART_S)

    async def _launch(self) -> Any:
        """A new AsyncLLM. If this is cancelled, it waits for vLLM's start to end, so that no process is left."""
        building = asyncio.ensure_future(asyncio.to_thread(vllm_host.build, self.path, self.max_model_len, self._args))
        try:
            llm = await asyncio.shield(building)
        except asyncio.CancelledError:
            await asyncio.wait([building])
            if not building.exception():
                llm = building.result()
                await asyncio.to_thread(vllm_host.end, llm, vllm_host.processes_of(llm))
            raise
        self._processes = vllm_host.processes_of(llm)
        await llm.get_supported_tasks()  # asked once and kept; the first request need not wait for it
        return llm

    async def _supervise(self) -> None:
        """Restarts the engine whenever it dies, the slower the more often it does, until it is given up."""
        while True:
            born = time.monotonic()
            while self.healthy:  # noqa: ASYNC110  (vLLM only sets a flag)
                await asyncio.sleep(_POLL_S)
            delay_s = self._restarts.delay_s(time.monotonic() - born)
            told = "it is given up" if delay_s is None else f"starting it again in {delay_s:.0f} s"
            logger.error("The engine of %r is dead; %s.", self.model, told)
            await self._stop()
            if delay_s is None:
                return
            await asyncio.sleep(delay_s)
            try:
                self._llm = await self._launch()
            except Exception:  # whatever it is, the next try may pass
                logger.exception("The engine of %r could not be started again.", self.model)
            else:
                self._restarts.count += 1
                logger.warning("The engine of %r is up again.", self.model)

    async def _stop(self) -> None:
        """Ends every call in flight and the engine's processes."""
        llm, self._llm = self._llm, None
        for wakeup in self._wakeups:
            wakeup.set()
        if llm is None:
            return
        if llm.output_handler:
            llm.output_handler.cancel()  # else it reports the shutdown as a crash
        ending = asyncio.ensure_future(asyncio.to_thread(vllm_host.end, llm, self._processes))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise


class AdaptedEngine(EngineWrapper):
    """The engine's model with an adapter: the same tokens, a prefix cache of its own."""

    def __init__(self, engine: VLLMEngine, lora: LoRA) -> None:
        super().__init__(engine)
        self._adapted = engine
        self._lora = lora

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        return self._adapted.generate(prompt, sampling, n, lora=self._lora)
