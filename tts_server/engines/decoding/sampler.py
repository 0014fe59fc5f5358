"""Logits to tokens: penalties, truncations and the draw, row by row. Knows nothing of models and text."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strategies.core.contracts import Sampling, TokenIds

if TYPE_CHECKING:
    from torch import Tensor

_GREEDY = 1e-5
"""Temperatures below this one would overflow, and mean the likeliest token."""
_HEAD = 1024
"""Tokens in which `top_p` is looked for before the whole vocabulary is sorted."""


class Sampler:
    """Draws the next token of each sample of one call, in vLLM's order of operations.

    Sample i draws with one uniform number a token from a generator seeded by (seed, i): which other samples run
    beside it changes nothing.

    Args:
        sampling: how; None in a field that truncates or penalises is off, no temperature is 1.
        prompt_ids: what the samples continue; the repetition penalty counts them.
        n: samples, one row each.
        ends: tokens that `min_tokens` forbids.
    """

    def __init__(self, sampling: Sampling, prompt_ids: TokenIds, n: int, ends: TokenIds) -> None:
        self._sampling = sampling
        self._ends = list(ends)
        self._prompt_ids = list(prompt_ids)
        self._prompted: Tensor | None = None
        self._drawn: list[list[int]] = [[] for _ in range(n)]
        self._temperature = 1.0 if sampling.temperature is None else sampling.temperature
        seed = sampling.seed
        self._rngs = [random.Random() if seed is None else random.Random(f"{seed} {i}") for i in range(n)]

    def draw(self, logits: "Tensor") -> list[int]:
        """One token a row.

        Args:
            logits: [rows, vocabulary], float32.

        Raises:
            ArithmeticError: the model's logits are not numbers, or every token is forbidden.
        """
        shaped = self._penalise(self._bias(logits))
        if not shaped.amax(-1).isfinite().all():
            raise ArithmeticError("no token has a finite logit")
        tokens: list[int] = (shaped.argmax(-1) if self._temperature < _GREEDY else self._sample(shaped)).tolist()
        for drawn, token in zip(self._drawn, tokens, strict=True):
            drawn.append(token)
        return tokens

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows only, in this order."""
        self._drawn = [self._drawn[row] for row in rows]
        self._rngs = [self._rngs[row] for row in rows]

    def _bias(self, logits: "Tensor") -> "Tensor":
        s = self._sampling
        if s.allowed_token_ids:
            allowed = _index(logits, list(s.allowed_token_ids))
            logits = logits.new_full(logits.shape, float("-inf")).index_copy(1, allowed, logits[:, allowed])
        if self._ends and s.min_tokens and len(self._drawn[0]) < s.min_tokens:
            logits = logits.index_fill(1, _index(logits, self._ends), float("-inf"))
        if s.logit_bias:
            biases = logits.new_tensor(list(s.logit_bias.values())).expand(len(logits), -1)
            logits = logits.index_add(1, _index(logits, list(s.logit_bias)), biases)
        return logits

    def _penalise(self, logits: "Tensor") -> "Tensor":
        s = self._sampling
        repetition, frequency, presence = s.repetition_penalty or 1.0, s.frequency_penalty, s.presence_penalty
        if repetition == 1.0 and not frequency and not presence:
            return logits
        counts = _counts(logits, self._drawn)
        if repetition != 1.0:
            if self._prompted is None:
                self._prompted = _counts(logits, [self._prompt_ids]) > 0
            damped = (logits / repetition).where(logits > 0, logits * repetition)
            logits = damped.where(self._prompted | (counts > 0), logits)
        return logits - (frequency or 0.0) * counts - (presence or 0.0) * (counts > 0)

    def _sample(self, logits: "Tensor") -> "Tensor":
        import torch  # noqa: PLC0415

        probs = self._truncate((logits / self._temperature).softmax(-1))
        # In the vocabulary's order, not by probability, where rounding could swap two neighbours; in float64, where
        # a number just under 1 stays under 1.
        cumulated = probs.double().cumsum(-1)
        uniform = cumulated.new_tensor([[rng.random()] for rng in self._rngs])
        return torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True).squeeze(-1)

    def _truncate(self, probs: "Tensor") -> "Tensor":
        s = self._sampling
        if s.min_p:
            probs = probs.masked_fill(probs < s.min_p * probs.amax(-1, keepdim=True), 0.0)
        if s.top_k and 0 < s.top_k < probs.shape[-1]:
            probs = probs.masked_fill(probs < probs.topk(s.top_k).values[:, -1:], 0.0)
        if s.top_p is not None and s.top_p < 1:
            probs = probs.masked_fill(probs < _least_of_nucleus(probs, s.top_p), 0.0)
        return probs


def _least_of_nucleus(probs: "Tensor", top_p: float) -> "Tensor":
    """The least probability among the likeliest tokens that together first reach `top_p`, [rows, 1]."""
    wanted = top_p * probs.sum(-1, keepdim=True)
    head = probs.topk(min(_HEAD, probs.shape[-1])).values
    if bool((head.sum(-1, keepdim=True) < wanted).any()):
        head = probs.sort(descending=True).values
    before = head.cumsum(-1) - head
    kept = (before < wanted).sum(-1, keepdim=True).clamp(min=1)
    return head.gather(-1, kept - 1)


def _counts(like: "Tensor", tokens: list[list[int]]) -> "Tensor":
    """How often each row, all of one length, holds each token: [rows, vocabulary]."""
    index = _index(like, tokens)
    return like.new_zeros(len(tokens), like.shape[-1]).scatter_add_(1, index, like.new_ones(index.shape))


def _index(like: "Tensor", ids: list[int] | list[list[int]]) -> "Tensor":
    import torch  # noqa: PLC0415

    return torch.tensor(ids, dtype=torch.long, device=like.device)
