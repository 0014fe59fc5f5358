"""A token-by-token decoding loop over a causal language model of `transformers`. Knows nothing of threads and HTTP."""

import copy
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from strategies.core.contracts import Chunk, FinishReason, Sampling, TokenIds, TokenLogprob
from tts_server.engines.decoding.detokenizer import Detokenizer, SampleText
from tts_server.engines.decoding.sampler import Sampler

if TYPE_CHECKING:
    from torch import LongTensor, Tensor
    from transformers import DynamicCache

_PREFILL = 512
"""Prompt tokens of one step, so that a long prompt does not hold up others for long."""
_TOLD_PREFILL = 64
"""The same where each of them has logprobs, which take a vocabulary of memory."""
_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""What the model's generation config decides where a request does not."""


class Decoder:
    """Decodes the samples of a prompt as one batch, computing the prompt once.

    Args:
        model: a causal language model of `transformers`.
        tokenizer: its tokenizer, used by this object only.
        max_model_len: tokens of prompt and completion together.
    """

    def __init__(self, model: Any, tokenizer: Any, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = _Prompts(max_model_len)
        eos = model.generation_config.eos_token_id
        self._eos = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}

    def decode(self, prompt_ids: TokenIds, sampling: Sampling, n: int) -> Generator[list[Chunk], None, None]:
        """Decodes n samples; each item is what one step of the model gave, at most one chunk a sample."""
        sampling = self._with_defaults(sampling)
        ends = frozenset() if sampling.ignore_eos else frozenset(self._eos)
        sampler = Sampler(sampling, prompt_ids, n, (*ends, *sampling.stop_token_ids))
        told = sampling.prompt_logprobs is not None
        cache, cached = self._prompts.longest(prompt_ids[:1] if told else prompt_ids, self._model.config)
        rows = [self._row(i, prompt_ids, cached, sampling, ends) for i in range(n)]
        if told:
            logits, prompt_logprobs = yield from self._prefill_told(prompt_ids, cache, sampling)
            for row in rows:
                row.prompt_logprobs = prompt_logprobs
        else:
            logits = yield from self._prefill(prompt_ids, cached, cache)
        cache.reorder_cache(self._tensor([0] * n))
        logits = logits.expand(n, -1)
        while True:
            tokens = sampler.draw(logits)
            logprobs = self._logprobs(logits, tokens, sampling)
            chunks = [row.grow(token, found) for row, token, found in zip(rows, tokens, logprobs, strict=True)]
            yield chunks
            growing = [i for i, chunk in enumerate(chunks) if chunk.finish_reason is None]
            if not growing:
                return
            if len(growing) < len(rows):
                rows = [rows[i] for i in growing]
                sampler.keep(growing)
                cache.reorder_cache(self._tensor(growing))
            logits = self._forward([[tokens[i]] for i in growing], cache)

    def _with_defaults(self, sampling: Sampling) -> Sampling:
        config = self._model.generation_config
        unset = [name for name in _DEFAULTS if getattr(sampling, name) is None]
        defaults: dict[str, Any] = {name: getattr(config, name, None) for name in unset}
        return replace(sampling, **defaults)

    def _row(self, index: int, prompt_ids: TokenIds, cached: int, sampling: Sampling, eos: frozenset[int]) -> "_Row":
        prompt_tokens = len(prompt_ids)
        room = self.max_model_len - prompt_tokens
        return _Row(
            index=index,
            text=SampleText(Detokenizer(self._tokenizer, prompt_ids), sampling.stop, sampling.include_stop),
            sampling=sampling,
            eos=eos,
            limit=room if sampling.max_tokens is None else min(room, sampling.max_tokens),
            prompt_tokens=prompt_tokens,
            cached_tokens=prompt_tokens if index else cached,
        )

    def _prefill(
        self, prompt_ids: TokenIds, cached: int, cache: "DynamicCache"
    ) -> Generator[list[Chunk], None, "Tensor"]:
        """Computes the prompt from token `cached` on; gives its last token's logits, [1, vocabulary]."""
        for start in range(cached, len(prompt_ids), _PREFILL):
            logits = self._forward([list(prompt_ids[start : start + _PREFILL])], cache)
            yield []
        self._prompts.keep(prompt_ids, cache)
        return logits

    def _prefill_told(
        self, prompt_ids: TokenIds, cache: "DynamicCache", sampling: Sampling
    ) -> Generator[list[Chunk], None, tuple["Tensor", tuple[TokenLogprob, ...]]]:
        """Computes the whole prompt; gives its last token's logits and the logprobs of its tokens but the first."""
        told: list[TokenLogprob] = []
        wanted = Sampling(logprobs=sampling.prompt_logprobs)
        for start in range(0, len(prompt_ids), _TOLD_PREFILL):
            block = prompt_ids[start : start + _TOLD_PREFILL]
            (logits,) = self._logits([list(block)], cache, keep=len(block))
            following = list(prompt_ids[start + 1 : start + 1 + len(block)])
            if following:
                told += [entry for (entry,) in self._logprobs(logits[: len(following)], following, wanted)]
            yield []
        self._prompts.keep(prompt_ids, cache)
        return logits[-1:], tuple(told)

    def _forward(self, token_ids: list[list[int]], cache: "DynamicCache") -> "Tensor":
        """Appends a block of tokens, [rows, length], to the cache; gives the last ones' logits, [rows, vocabulary]."""
        return self._logits(token_ids, cache, keep=1)[:, -1]

    def _logits(self, token_ids: list[list[int]], cache: "DynamicCache", keep: int) -> "Tensor":
        """The same with the logits of the last `keep` tokens, [rows, keep, vocabulary]."""
        ids = self._tensor(token_ids)
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=keep)
        logits: Tensor = output.logits.float()
        return logits

    def _tensor(self, ids: list[int] | list[list[int]]) -> "LongTensor":
        import torch  # noqa: PLC0415

        return cast("LongTensor", torch.tensor(ids, device=self._model.device))

    def _logprobs(self, logits: "Tensor", tokens: list[int], sampling: Sampling) -> list[tuple[TokenLogprob, ...]]:
        """The drawn tokens' logprobs under the model itself: before penalties, temperature and truncation."""
        if sampling.logprobs is None and not sampling.logprob_token_ids:
            return [()] * len(tokens)
        raw = logits.log_softmax(-1)
        if sampling.logprob_token_ids:
            ids = self._tensor(list(sampling.logprob_token_ids)).expand(len(tokens), -1)
            values = raw.gather(-1, ids)
        else:
            values, ids = raw.topk(min(sampling.logprobs or 0, self.vocabulary))
        own = raw.gather(-1, self._tensor(tokens)[:, None])[:, 0]
        return [
            (self._logprob(token, logprob, tuple(map(self._logprob, top_ids, top))),)
            for token, logprob, top_ids, top in zip(tokens, own.tolist(), ids.tolist(), values.tolist(), strict=True)
        ]

    def _logprob(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(self._tokenizer.decode([token]), logprob, token, top)


@dataclass(slots=True)
class _Row:
    """A sample that is growing."""

    index: int
    text: SampleText
    sampling: Sampling
    eos: frozenset[int]
    limit: int
    prompt_tokens: int
    cached_tokens: int
    tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()

    def grow(self, token: int, logprobs: tuple[TokenLogprob, ...]) -> Chunk:
        first = self.tokens == 0
        self.tokens += 1
        stopped = token in self.sampling.stop_token_ids
        # Such a token is a sample's end like the model's own, and no stop string after which a search would go on.
        reason: FinishReason | None = "eos" if stopped or token in self.eos else None
        text = self._spell(token, reason, stopped)
        if reason is None and self.text.stop is not None:
            reason = "stop"
        elif reason is None and self.tokens >= self.limit:
            reason, text = "length", text + self.text.flush()
        return Chunk(
            self.index,
            text,
            (token,),
            1,
            logprobs,
            prompt_logprobs=self.prompt_logprobs if first else (),
            prompt_tokens=self.prompt_tokens if first else 0,
            cached_tokens=self.cached_tokens if first else 0,
            finish_reason=reason,
            stop=self.text.stop,
        )

    def _spell(self, token: int, reason: FinishReason | None, stopped: bool) -> str:
        if reason is None:
            return self.text.push(token, may_stop=self.tokens > (self.sampling.min_tokens or 0))
        if stopped and self.sampling.include_stop and token not in self.eos:
            return self.text.push(token, may_stop=False)
        return self.text.flush()


class _Prompts:
    """The attention states of the last prompts, so that a step search does not compute a trajectory again.

    Args:
        limit: tokens that are kept, over all prompts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[TokenIds, DynamicCache] = {}

    def longest(self, ids: TokenIds, config: Any) -> tuple["DynamicCache", int]:
        """A cache with the longest known beginning of `ids`, never all of them, and how many tokens that is."""
        from transformers import DynamicCache  # noqa: PLC0415

        best = max(self._kept, key=lambda kept: _shared(kept, ids), default=())
        shared = min(_shared(best, ids), len(ids) - 1)
        if not shared:
            return DynamicCache(config=config), 0
        self._kept[best] = self._kept.pop(best)
        cache = _fork(self._kept[best])
        cache.crop(shared - len(best))
        return cache, shared

    def keep(self, ids: TokenIds, cache: "DynamicCache") -> None:
        """Remembers a prompt, and forgets the longest unused ones over the limit."""
        from transformers.cache_utils import DynamicLayer  # noqa: PLC0415

        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            return  # sliding windows and recurrent states cannot be cut back to a beginning
        self._kept.pop(ids, None)
        self._kept[ids] = _fork(cache)
        while sum(map(len, self._kept)) > self._limit:
            del self._kept[next(iter(self._kept))]


def _shared(a: TokenIds, b: TokenIds) -> int:
    """How many tokens they begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _fork(cache: "DynamicCache") -> "DynamicCache":
    """A second cache over the same states. Dynamic layers replace their tensors and never write into them."""
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked
