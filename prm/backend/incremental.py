"""Reads layouts with a causal model and keeps its attention states: a longer layout costs only its new tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from prm.backend.batching import Planned, Scores
from prm.backend.kv_cache import KVCache
from prm.base import PRMError
from prm.families.contract import Layout
from prm.families.encoder import TokenIds

_WORTH_WAITING = 64
"""Tokens that two layouts must share to be read one after the other instead of in one batch."""
_TOLERANCE = 0.02
"""By which a score that is read in two parts may differ, in the model's precision."""
_UNLIMITED = 2**60


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a batch and the cache may take."""

    batch_tokens: int
    """Tokens computed at once, with padding."""
    batch_bytes: int
    """Estimated memory of a batch."""
    cache_bytes: int
    """Memory of the kept states; with 0 every layout is read in full."""


class _Need(NamedTuple):
    past: int
    """Tokens whose states are kept and used."""
    new: int
    """Tokens to compute; 0 if the cache has every score."""
    scores: Mapping[int, float]
    """Scores from the cache, by index."""


class IncrementalReader:
    """Reads batches, on one thread.

    Args:
        backbone: a causal `PreTrainedModel` that gives hidden states.
        score: hidden states [n, hidden size] to scores [n].
        limits: of memory.
    """

    def __init__(self, backbone: Any, score: Callable[[torch.Tensor], torch.Tensor], limits: Limits) -> None:
        self._backbone = backbone
        self._score = score
        self._limits = limits
        self._cache = KVCache(limits.cache_bytes)
        self._costs = Costs.of(backbone)

    def choose(self, layouts: Sequence[Layout]) -> list[Planned]:
        needs = [self._need(layout) for layout in layouts]
        cached = [i for i, need in enumerate(needs) if not need.new]
        return [Planned(i, needs[i].new) for i in (*cached, *self._batch(layouts, needs))]

    def read(self, layouts: Sequence[Layout]) -> list[Scores]:
        needs = [self._need(layout) for layout in layouts]
        rows = [i for i, need in enumerate(needs) if need.new]
        read = self._forward([layouts[i] for i in rows], [needs[i] for i in rows]) if rows else []
        of = dict(zip(rows, read, strict=True))
        every = ({**need.scores, **of.get(i, {})} for i, need in enumerate(needs))
        return [tuple(scores[end] for end in layout.ends) for layout, scores in zip(layouts, every, strict=True)]

    def check(self) -> None:
        """Reads a text at once and in two parts.

        Raises:
            PRMError: the scores differ: the model is not causal, or does not take kept states.
        """
        ids = tuple(range(min(16, self._backbone.get_input_embeddings().num_embeddings)))
        part, whole = (Layout(ids[:n], (n - 1,)) for n in (len(ids) // 2, len(ids)))
        at_once, in_parts = (
            IncrementalReader(self._backbone, self._score, Limits(_UNLIMITED, _UNLIMITED, _UNLIMITED)) for _ in "12"
        )
        in_parts.read([part])
        (expected,), (got,) = at_once.read([whole])[0], in_parts.read([whole])[0]
        if not abs(got - expected) <= _TOLERANCE:
            raise PRMError(
                f"the reward model scores a text {expected:.3f} at once and {got:.3f} in two parts: it is not causal, "
                "so this backend cannot run it"
            )

    def _need(self, layout: Layout) -> _Need:
        length, scores = self._cache.find(layout.token_ids)
        missing = next((end for end in layout.ends if end not in scores), None)
        if missing is None:
            return _Need(len(layout.token_ids), 0, scores)
        past = min(length, missing)
        return _Need(past, len(layout.token_ids) - past, scores)

    def _batch(self, layouts: Sequence[Layout], needs: Sequence[_Need]) -> list[int]:
        """Chooses the oldest layout with something to compute, and those of about its size that fit beside it."""
        unknown = [i for i, need in enumerate(needs) if need.new]
        if not unknown:
            return []
        oldest = needs[unknown[0]]
        unknown.sort(key=lambda i: (abs(needs[i].new - oldest.new), abs(needs[i].past - oldest.past)))
        chosen, begun = list[int](), set[TokenIds]()
        for i in unknown:
            start = layouts[i].token_ids[: needs[i].past + _WORTH_WAITING]
            # A layout that begins like one of this batch costs less in the next batch, when that beginning is kept.
            if start in begun and self._limits.cache_bytes:
                continue
            if not chosen or self._fits([needs[k] for k in (*chosen, i)]):
                chosen.append(i)
                begun.add(start)
        return chosen

    def _fits(self, needs: Sequence[_Need]) -> bool:
        past, new = max(need.past for need in needs), max(need.new for need in needs)
        return (
            len(needs) * new <= self._limits.batch_tokens
            and self._costs.bytes(len(needs), past, new) <= self._limits.batch_bytes
        )

    @torch.inference_mode()
    def _forward(self, layouts: Sequence[Layout], needs: Sequence[_Need]) -> list[dict[int, float]]:
        """Returns the scores at the ends that the cache lacks, by index."""
        past = max(need.past for need in needs)
        states = self._kept(layouts, needs, past)
        inputs = _Inputs.of(layouts, needs, past, self._backbone.device)
        columns = [
            [end - need.past for end in layout.ends if end >= need.past]
            for layout, need in zip(layouts, needs, strict=True)
        ]
        hidden = self._hidden(inputs, states, columns)
        scores = iter(self._score(hidden).tolist())
        read = [{need.past + column: next(scores) for column in row} for need, row in zip(needs, columns, strict=True)]
        if self._limits.cache_bytes:
            self._keep(layouts, needs, states, past, read)
        return read

    def _kept(self, layouts: Sequence[Layout], needs: Sequence[_Need], past: int) -> DynamicCache:
        """Returns the kept states of every row, at the right of `past` columns.

        New tokens stand at the left of theirs, so every row is one run of tokens with the padding outside: distances
        are those in the text, also for attention of a window.
        """
        if not past:
            return DynamicCache()
        rows = [
            self._cache.states(layout.token_ids, need.past) if need.past else None
            for layout, need in zip(layouts, needs, strict=True)
        ]
        some = next(row for row in rows if row is not None)
        layers, pair, heads, _, size = some.shape
        every = some.new_zeros((layers, pair, len(rows), heads, past, size))
        for i, row in enumerate(rows):
            if row is not None:
                every[:, :, i, :, past - row.shape[-2] :] = row
        return DynamicCache([(layer[0], layer[1]) for layer in every])

    def _hidden(self, inputs: "_Inputs", states: DynamicCache, columns: Sequence[Sequence[int]]) -> torch.Tensor:
        """Returns the hidden states at the columns of each row; `states` grows by those of the inputs."""
        rows, width = inputs.ids.shape
        past = inputs.mask.shape[1] - width
        # A single row may be longer than a batch may be.
        step = max(1, self._limits.batch_tokens // rows)
        hidden_at = dict[tuple[int, int], torch.Tensor]()
        for begin in range(0, width, step):
            end = min(begin + step, width)
            hidden = self._backbone(
                input_ids=inputs.ids[:, begin:end],
                attention_mask=inputs.mask[:, : past + end],
                position_ids=inputs.positions[:, begin:end],
                past_key_values=states,
                use_cache=True,
            ).last_hidden_state
            hidden_at |= {
                (i, column): hidden[i, column - begin]
                for i, row in enumerate(columns)
                for column in row
                if begin <= column < end
            }
        return torch.stack([hidden_at[i, column] for i, row in enumerate(columns) for column in row])

    def _keep(
        self,
        layouts: Sequence[Layout],
        needs: Sequence[_Need],
        states: DynamicCache,
        past: int,
        read: Sequence[Mapping[int, float]],
    ) -> None:
        layers: Any = states.layers
        for i, (layout, need, scores) in enumerate(zip(layouts, needs, read, strict=True)):
            new = slice(past, past + need.new)
            row = torch.stack([torch.stack((layer.keys[i, :, new], layer.values[i, :, new])) for layer in layers])
            self._cache.add(layout.token_ids, need.past, row, scores)


class _Inputs(NamedTuple):
    """The new tokens of a batch [rows, tokens], padded at the right."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    """[rows, past + tokens]: 1 where a kept state or a new token is not padding."""

    @classmethod
    def of(cls, layouts: Sequence[Layout], needs: Sequence[_Need], past: int, device: torch.device) -> "_Inputs":
        width = max(need.new for need in needs)
        ids = torch.zeros((len(needs), width), dtype=torch.long)
        mask = torch.zeros((len(needs), past + width), dtype=torch.long)
        for i, (layout, need) in enumerate(zip(layouts, needs, strict=True)):
            ids[i, : need.new] = torch.tensor(layout.token_ids[need.past :])
            mask[i, past - need.past : past + need.new] = 1
        positions = torch.tensor([[need.past] for need in needs]) + torch.arange(width)
        # The positions of padding are never read, but must exist.
        last = torch.tensor([[need.past + need.new - 1] for need in needs])
        return cls(ids.to(device), positions.minimum(last).to(device), mask.to(device))


class Costs(NamedTuple):
    """Bytes that a batch takes."""

    kept: int
    """For each token whose states are held."""
    computed: int
    """For each token that is computed, beside its states."""
    score: int
    """For each pair of tokens that attend to each other."""

    @classmethod
    def of(cls, backbone: Any) -> "Costs":
        config, size = backbone.config.get_text_config(), backbone.dtype.itemsize
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        pairs = getattr(config, "num_key_value_heads", None) or heads
        inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
        return cls(
            kept=2 * config.num_hidden_layers * pairs * head_size * size,
            computed=(6 * config.hidden_size + 3 * inner) * size,
            score=2 * heads * size,
        )

    def bytes(self, rows: int, past: int, new: int) -> int:
        # The states exist twice while a layer joins the new ones to the kept ones.
        return rows * (2 * self.kept * (past + new) + self.computed * new + self.score * new * (past + new))
