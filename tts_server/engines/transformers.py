"""The portable engine: a decoding loop over a model of `transformers`, for machines without vLLM.

The samples of a call are one batch; calls that run at the same time take turns, a step each.
"""

import asyncio
import copy
import threading
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, TokenIds
from tts_server.engines.decoding.loop import Decoder
from tts_server.engines.tokens.chat_template import ChatTemplate
from tts_server.engines.tokens.tokenizer import LocalTokenizer
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest
from tts_server.forms.json_schema import field_of
from tts_server.raw_output import captured


class TransformersEngine:
    """Generates in this process, on a GPU if there is one.

    Args:
        model_path: a model directory or a hub id.
        name: what clients call the model.
        max_model_len: tokens of prompt and completion together; by default what the model's config says.
        args: further arguments of `AutoModelForCausalLM.from_pretrained`.
    """

    continues = True
    constrains = False
    calls_itself = False

    def __init__(
        self,
        model_path: Path | str,
        *,
        name: str,
        max_model_len: int | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = name
        self.max_model_len = max_model_len
        self._path = str(model_path)
        self._args = dict(args or {})
        self._loaded: _Loaded | None = None
        self._turns: SimpleQueue[_Call | None] = SimpleQueue()
        self._worker = threading.Thread(target=self._work, name=f"transformers {name}", daemon=True)
        self._closed = False

    @property
    def thinks(self) -> bool:
        return self._loaded is not None and self._loaded.template.thinks

    @property
    def tool_format(self) -> str | None:
        return self._loaded.template.tool_format if self._loaded else None

    @property
    def tokenizer(self) -> LocalTokenizer:
        return self._ready().tokenizer

    @property
    def healthy(self) -> bool:
        return self._worker.is_alive() and not self._closed

    async def start(self) -> None:
        """Loads the model.

        Raises:
            ImportError: the extra `transformers` is not installed.
            OSError: there is no model at the path.
            ValueError: neither the caller nor the model's config says how long the context is.
        """
        self._loaded = await asyncio.to_thread(_load_quietly, self._path, self.max_model_len, self._args)
        self.max_model_len = self._loaded.decoder.max_model_len
        self._worker.start()

    async def close(self) -> None:
        self._closed = True
        self._turns.put(None)
        if self._worker.is_alive():
            await asyncio.to_thread(self._worker.join)
        self._loaded = None

    async def encode(self, prompt: Prompt) -> TokenIds:
        return await asyncio.to_thread(self._ready().template.encode, prompt)

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        return await asyncio.to_thread(self._ready().template.opening, prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        if sampling.structured is not None:
            raise Refused("The transformers engine cannot constrain its output.", field_of(sampling.structured))
        if sampling.bad_words:
            raise Refused("The transformers engine cannot keep words out.", "bad_words")
        prompt_ids = await self.encode(prompt)
        decoder = self._ready().decoder
        _check(prompt_ids, sampling, decoder)
        call = _Call(decoder.decode(prompt_ids, sampling, n), asyncio.get_running_loop())
        self._turns.put(call)
        try:
            while chunks := await call.told.get():
                if isinstance(chunks, Exception):
                    raise chunks
                for chunk in chunks:
                    yield chunk
        finally:
            call.aborted = True

    def _ready(self) -> "_Loaded":
        if self._loaded is None or not self.healthy:
            raise EngineUnavailable(f"The engine of {self.model!r} is not running.")
        return self._loaded

    def _work(self) -> None:
        """The worker thread: calls take turns until the engine is closed."""
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            while call := self._turns.get():
                if call.step():
                    self._turns.put(call)
        while not self._turns.empty():
            if call := self._turns.get():
                call.tell(EngineUnavailable(f"The engine of {self.model!r} was closed."))


@dataclass(slots=True, eq=False)
class _Call:
    """One `generate`, as the event loop and the worker thread share it."""

    steps: Generator[list[Chunk], None, None]
    loop: asyncio.AbstractEventLoop
    told: asyncio.Queue[list[Chunk] | Exception | None] = field(default_factory=asyncio.Queue)
    """None is the end."""
    aborted: bool = False

    def step(self) -> bool:
        """One step, on the worker thread; whether there are more."""
        if self.aborted:
            self.steps.close()
            return False
        try:
            chunks = next(self.steps, None)
        except Exception as error:
            self.tell(error)
            return False
        if chunks != []:
            self.tell(chunks)
        return chunks is not None

    def tell(self, news: list[Chunk] | Exception | None) -> None:
        try:
            self.loop.call_soon_threadsafe(self.told.put_nowait, news)
        except RuntimeError:  # the loop is closed, so nobody listens any more
            self.aborted = True


class _Loaded(NamedTuple):
    template: ChatTemplate
    tokenizer: LocalTokenizer
    decoder: Decoder


def _load_quietly(path: str, max_model_len: int | None, args: Mapping[str, Any]) -> _Loaded:
    with captured():
        return _load(path, max_model_len, args)


def _load(path: str, max_model_len: int | None, args: Mapping[str, Any]) -> _Loaded:
    try:
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            f"The transformers engine needs PyTorch and Transformers ({error}); in a checkout: "
            "pip install '.[transformers]'."
        ) from error
    device, dtype = ("cuda", "auto") if torch.cuda.is_available() else ("cpu", torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=args.get("trust_remote_code", False))
    model: Any = AutoModelForCausalLM.from_pretrained(path, **{"dtype": dtype, "device_map": device, **args})
    limit = max_model_len or getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        raise ValueError(f"The config of {path!r} has no max_position_embeddings: set max_model_len.")
    # The template changes its tokenizer's state while it encodes, on another thread than the decoder's.
    decoder = Decoder(model.eval(), tokenizer, limit)
    return _Loaded(ChatTemplate(copy.deepcopy(tokenizer)), LocalTokenizer(tokenizer), decoder)


def _check(prompt_ids: TokenIds, sampling: Sampling, decoder: Decoder) -> None:
    """Refuses what would fail in the middle of a step."""
    if not prompt_ids:
        raise InvalidRequest("The prompt has no tokens.", param="messages")
    if len(prompt_ids) >= decoder.max_model_len:
        raise ContextTooLong(len(prompt_ids), decoder.max_model_len)
    fields: dict[str, Iterable[int]] = {
        "messages": prompt_ids,
        "logit_bias": sampling.logit_bias or (),
        "logprob_token_ids": sampling.logprob_token_ids,
        "stop_token_ids": sampling.stop_token_ids,
        "allowed_token_ids": sampling.allowed_token_ids,
    }
    for param, ids in fields.items():
        if unknown := [token for token in ids if not 0 <= token < decoder.vocabulary]:
            raise InvalidRequest(f"This model has no token {unknown[0]}: it has {decoder.vocabulary}.", param=param)
