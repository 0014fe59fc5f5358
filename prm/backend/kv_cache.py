"""Attention states of token sequences, kept in a tree: sequences with the same beginning share it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prm.families.encoder import TokenIds

Tensor = Any
"""A `torch.Tensor`. States have the shape [layers, 2 (keys, values), heads, tokens, head size]."""


@dataclass(slots=True, eq=False)
class _Node:
    """A run of tokens that every sequence through it shares."""

    ids: TokenIds
    states: Tensor
    scores: dict[int, float]
    """By offset into `ids`."""
    parent: "_Node | None"
    children: dict[int, "_Node"] = field(default_factory=dict)
    """By first token."""
    used: int = 0

    @property
    def nbytes(self) -> int:
        return 0 if self.states is None else int(self.states.nbytes)


class Found(NamedTuple):
    """What the cache holds of a sequence."""

    length: int
    """Tokens from its beginning whose states are kept."""
    scores: Mapping[int, float]
    """The scores that were read there, by index."""


class _Run(NamedTuple):
    node: _Node
    matched: int


class KVCache:
    """A tree of token runs. The run that was used longest ago is dropped first.

    Args:
        max_bytes: of states that are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._root = _Node((), None, {}, None)
        self._nodes: set[_Node] = set()
        self._clock = 0

    def find(self, ids: TokenIds) -> Found:
        """Returns what the cache holds of `ids`."""
        at, scores = 0, dict[int, float]()
        for node, matched in self._walk(ids):
            scores |= {at + offset: score for offset, score in node.scores.items() if offset < matched}
            at += matched
        return Found(at, scores)

    def states(self, ids: TokenIds, length: int) -> Tensor:
        """The states of the first `length` tokens of `ids`, at least one, all of which are kept."""
        import torch  # noqa: PLC0415

        runs = [node.states[..., :matched, :] for node, matched in self._walk(ids[:length])]
        return torch.cat(runs, dim=-2)

    def add(self, ids: TokenIds, start: int, states: Tensor, scores: Mapping[int, float]) -> None:
        """Keeps the states of `ids[start:]`, and scores by index into `ids`.

        Nothing is kept if what came before `start` was dropped in the meantime.
        """
        runs = self._walk(ids)
        at = sum(matched for _, matched in runs)
        if at < start:
            return
        node = self._end(runs)
        if at < len(ids):
            rest = _Node(ids[at:], states[..., at - start :, :].clone(), {}, node, used=self._clock)
            node.children[ids[at]] = rest
            self._keep(rest)
        self._note(ids, scores)
        self._drop()

    def _walk(self, ids: TokenIds) -> list[_Run]:
        self._clock += 1
        runs, node, at = list[_Run](), self._root, 0
        while at < len(ids) and (child := node.children.get(ids[at])):
            matched = _shared(child.ids, ids, at)
            child.used = self._clock
            runs.append(_Run(child, matched))
            node, at = child, at + matched
            if matched < len(child.ids):
                break
        return runs

    def _end(self, runs: list[_Run]) -> _Node:
        """The node that ends where the last run does; it is split if it goes on."""
        if not runs:
            return self._root
        node, matched = runs[-1]
        if matched == len(node.ids):
            return node
        above = node.parent or self._root
        head = _Node(
            node.ids[:matched],
            node.states[..., :matched, :].clone(),
            {k: score for k, score in node.scores.items() if k < matched},
            above,
            {node.ids[matched]: node},
            node.used,
        )
        above.children[node.ids[0]] = head
        self.nbytes -= node.nbytes
        node.states = node.states[..., matched:, :].clone()
        self.nbytes += node.nbytes
        node.scores = {k - matched: score for k, score in node.scores.items() if k >= matched}
        node.ids, node.parent = node.ids[matched:], head
        self._keep(head)
        return head

    def _keep(self, node: _Node) -> None:
        self._nodes.add(node)
        self.nbytes += node.nbytes

    def _note(self, ids: TokenIds, scores: Mapping[int, float]) -> None:
        at = 0
        for node, matched in self._walk(ids):
            node.scores |= {k - at: score for k, score in scores.items() if at <= k < at + matched}
            at += matched

    def _drop(self) -> None:
        """Makes room, one generation of leaves after the other."""
        while self.nbytes > self._max_bytes:
            for leaf in sorted((node for node in self._nodes if not node.children), key=lambda node: node.used):
                self._nodes.remove(leaf)
                self.nbytes -= leaf.nbytes
                if leaf.parent:
                    del leaf.parent.children[leaf.ids[0]]
                if self.nbytes <= self._max_bytes:
                    break


def _shared(run: TokenIds, ids: TokenIds, at: int) -> int:
    """How many tokens of `run` stand at `at` of `ids`."""
    if ids[at : at + len(run)] == run:
        return len(run)
    return next(k for k, (a, b) in enumerate(zip((*run, None), (*ids[at:], None), strict=False)) if a != b)
