"""A picture of one search: a strategy runs in the toy world, every sample it draws is a node of a Mermaid flowchart.

A sample hangs below those that its prompt shows, which a continuation, a revision, a merge and a verdict all have in
common. Nodes are ordered by what they are, not by when they came, so the same search gives the same picture.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import STEP, ToyEngine, World, render
from prm import SEPARATOR, Aggregation, Choice, OnTokens, StepScores
from strategies import Entry
from strategies.core.account import Account, Usage
from strategies.core.contracts import Chunk, Engine, Final, Prompt, Sample, Sampling, TokenIds, text_of
from strategies.core.metered import MeteredEngine, MeteredPRM

WORLD = World(seed=3, depth=3, p_step=0.7)
PRM_QUALITY = 0.6
SEED = 15
"""With this one almost every search meets right and wrong steps, so that its figure shows what it does with them."""
REPLIES = {
    "most consistent": "The most consistent response is Response 1.",
    "Review your last solution": "Review {number}: a step is wrong.",
}
"""What the policy says where it is asked for a judgement, which the toy world knows nothing of."""
_STEP_KEY = re.compile(STEP.pattern + r"\w{5}")
_BOXED = re.compile(r"\\boxed\{(\w+)\}")
_LABEL_CHARACTERS = 32
_STYLES = (
    "classDef right fill:#d9f0d9,stroke:#2e7d32,color:#000",
    "classDef wrong fill:#f6dcdc,stroke:#b3403a,color:#000",
    "classDef other fill:#e8e8ee,stroke:#6a6a80,color:#000",
    "classDef returned stroke-width:4px",
)


@dataclass(eq=False, slots=True)
class Node:
    """One sample of a search."""

    parents: tuple["Node", ...]
    sample: Sample = field(default_factory=Sample)

    @property
    def depth(self) -> int:
        return 1 + max((parent.depth for parent in self.parents), default=0)

    @property
    def text(self) -> str:
        return self.sample.text.strip()

    def ancestors(self) -> Iterator["Node"]:
        for parent in self.parents:
            yield parent
            yield from parent.ancestors()

    def shown_in(self, prompt: Prompt) -> bool:
        if prompt.token_ids:
            return bool(self.sample.token_ids) and _listed(self.sample.token_ids) in _listed(prompt.token_ids)
        return bool(self.text) and self.text in render(prompt)


class TracedEngine:
    """An engine that notes what is drawn from it, and answers requests for a judgement by `REPLIES`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.model = engine.model
        self.max_model_len = engine.max_model_len
        self.continues = engine.continues
        self.nodes: list[Node] = []
        self._replies = 0

    async def encode(self, prompt: Prompt) -> TokenIds:
        return await self._engine.encode(prompt)

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        parents = self._parents(prompt)
        drawn = [Node(parents) for _ in range(n)]
        self.nodes += drawn
        asked = text_of(prompt.messages[-1]) if prompt.messages else ""
        reply = next((reply for marker, reply in REPLIES.items() if marker in asked), None)
        if reply:
            self._replies += 1
            source = _said(reply.format(number=self._replies), n)
        else:
            source = self._engine.generate(_taken_up(prompt, asked), sampling, n)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                drawn[chunk.index].sample.chunks.append(chunk)
                yield chunk

    def _parents(self, prompt: Prompt) -> tuple[Node, ...]:
        """The samples that the prompt shows, without those that others of them were made from."""
        shown = [node for node in self.nodes if node.shown_in(prompt)]
        above = {ancestor for node in shown for ancestor in node.ancestors()}
        return tuple(node for node in shown if node not in above)


class TracedPRM:
    """A reward model that notes each step's score."""

    def __init__(self, prm: ToyPRM) -> None:
        self._prm = prm
        self.name = prm.name
        self.aggregation: Aggregation = prm.aggregation
        self.selector: Choice = prm.selector
        self.trained = prm.trained
        self.scores: dict[str, float] = {}

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        results = await self._prm.score(question, solutions, on_tokens=on_tokens)
        for steps, scores in zip(solutions, results, strict=True):
            for step, score in zip(steps, scores.scores, strict=True):
                self.scores |= {match[0]: score for match in _STEP_KEY.finditer(step)}
        return results


@dataclass(frozen=True, slots=True)
class Trace:
    """A search that has ended."""

    nodes: tuple[Node, ...]
    scores: Mapping[str, float]
    final: Final
    usage: Usage

    def mermaid(self) -> str:
        """The flowchart, without its fence."""
        nodes = self._ordered()
        lines = ["flowchart TD", 'n0(["question"])']
        for node, number in nodes.items():
            lines.append(f'n{number}["{self._label(node)}"]')
            above = sorted(nodes[parent] for parent in node.parents) or [0]
            lines += [f"n{parent} --> n{number}" for parent in above]
        styles = {number: _style(node) for node, number in nodes.items()}
        lines += _STYLES
        lines += [f"class n{number} {style}" for number, style in styles.items()]
        returned = self.final.best.text
        lines += [f"class n{number} returned" for node, number in nodes.items() if node.text and node.text in returned]
        return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])])

    def _ordered(self) -> dict[Node, int]:
        """Every node's number from 1: by depth, then by parents, then by text."""
        numbers: dict[Node, int] = {}
        for depth in sorted({node.depth for node in self.nodes}):
            level = [node for node in self.nodes if node.depth == depth]
            level.sort(key=lambda node: (sorted(numbers[parent] for parent in node.parents), node.text))
            numbers |= {node: len(numbers) + i for i, node in enumerate(level, 1)}
        return numbers

    def _label(self, node: Node) -> str:
        steps = list(_STEP_KEY.finditer(node.text))
        if not steps:
            return _plain(node.text) or "(nothing)"
        first, last = steps[0][1], steps[-1][1]
        parts = [f"step {last}" if first == last else f"steps {first} to {last}"]
        parts += [f"answer {answer}" for answer in _BOXED.findall(node.text)[-1:]]
        if (score := self.scores.get(steps[-1][0])) is not None:
            parts.append(f"score {score:.2f}")
        return "<br/>".join(parts)


def trace(entry: Entry, options: Mapping[str, Any]) -> Trace:
    """Runs one search in the toy world, with a reward model where the strategy can use one."""
    return asyncio.run(_trace(entry, options))


async def _trace(entry: Entry, options: Mapping[str, Any]) -> Trace:
    account = Account()
    engine = TracedEngine(ToyEngine(WORLD))
    prm = TracedPRM(ToyPRM(PRM_QUALITY))
    checked = entry.options.model_validate(options)
    given = {name: getattr(checked, name) for name in entry.options.model_fields}
    metered = MeteredPRM(prm, account) if entry.scored else None
    final: Final | None = None
    async with aclosing(
        entry.run(WORLD.task(SEED), MeteredEngine(engine, account), metered, account, **given)
    ) as events:
        async for event in events:
            final = event if isinstance(event, Final) else final
    if final is None:
        raise RuntimeError(f"{entry.name} ended without an answer")
    return Trace(tuple(engine.nodes), prm.scores, final, account.usage)


def _taken_up(prompt: Prompt, asked: str) -> Prompt:
    """The prompt, with steps that the user's turn shows as the beginning of the answer, where they end too early.

    A search over thoughts shows them there; the toy world's policy goes on only from its own turn.
    """
    shown = list(_STEP_KEY.finditer(asked))
    answered = any(message["role"] == "assistant" for message in prompt.messages)
    if answered or not shown or int(shown[-1][1]) >= WORLD.depth:
        return prompt
    begun = {"role": "assistant", "content": "".join(step[0] + SEPARATOR for step in shown)}
    return Prompt((*prompt.messages, begun), template={"continue_final_message": True})


async def _said(text: str, n: int) -> AsyncGenerator[Chunk, None]:
    for index in range(n):
        yield Chunk(index, text, completion_tokens=len(text.split()), prompt_tokens=1, finish_reason="eos")


def _listed(token_ids: TokenIds) -> str:
    return f" {' '.join(map(str, token_ids))} "


def _style(node: Node) -> str:
    steps = STEP.findall(node.text)
    return steps[-1][1] if steps else "other"


def _plain(text: str) -> str:
    """The beginning of a text, without what Mermaid would read."""
    words = re.sub(r"[^\w .,:/]+", " ", text).split()
    line = " ".join(words)
    return line if len(line) <= _LABEL_CHARACTERS else line[:_LABEL_CHARACTERS].rstrip() + " ..."
