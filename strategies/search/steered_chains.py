"""Solutions that are cut, added to and resumed: what strategies that steer one chain of thought share.

A chain is kept as token ids, so what it has said is never tokenised again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from strategies.core.account import Account
from strategies.core.concurrency import telling, together
from strategies.core.contracts import (
    Chunk,
    Engine,
    Event,
    FinishReason,
    Progress,
    Prompt,
    Refused,
    Sample,
    Sampling,
    Task,
    TokenIds,
)
from strategies.core.parents import numbers_of
from strategies.sampling.dialogue import ask, seeded
from strategies.sampling.draw import candidates_of, draw, elect, with_temperature
from strategies.sampling.drawing import raise_if_all_failed, succeeded
from strategies.search.stop_strings import Border, first_stop, length_of, reach, stopped_at, tail, without_end

ThinkOpen = Annotated[str, Field(min_length=1, max_length=100, description="What the model opens its thought with.")]
ThinkClose = Annotated[str, Field(min_length=1, max_length=100, description="What the model closes its thought with.")]

_BEFORE = ("x\n", "x", "x.", "xxxx")
_AFTER = ("x", " x", "\nx")
"""Texts to put around a text."""
_OTHER = "7"
"""Stands for the neighbours' characters next to the text: where an encoding turns, there is a boundary."""


async def text_ids(engine: Engine, text: str) -> TokenIds:
    """The token ids of a plain text, by an engine that encodes chats only.

    The text is put between two others in a user's turn, where no template looks for thoughts to cut or trims what is
    inside. It is what the encoding has more than that of the two others alone. Where a tokenizer merges it with its
    neighbours, others are tried. What is a special token stays text, as `Engine.encode` has it.

    Raises:
        Refused: the engine does not take token ids, or the tokenizer merges the text with all that may stand beside.
    """
    for before in _BEFORE:
        for after in _AFTER:
            texts = [before + after, before + _OTHER, before[:-1] + _OTHER + after, before + text + after]
            around, ending, beginning, whole = [await _turn(engine, written) for written in texts]
            start = next(i for i, (a, b) in enumerate(zip(around, ending, strict=False)) if a != b)
            rest = len(around) - start
            # The two others must not merge either, or a part of them would be taken for one of the text.
            apart = beginning[-rest:] == around[start:]
            if apart and len(whole) > len(around) and whole[:start] + whole[-rest:] == around:
                return whole[start:-rest]
    raise Refused(f"the model's tokenizer has no tokens of its own for {text!r}", "tts.strategy")


async def _turn(engine: Engine, text: str) -> TokenIds:
    return await engine.encode(Prompt(({"role": "user", "content": text},)))


@dataclass(frozen=True, slots=True)
class Text:
    """A text to put into chains, with its token ids."""

    text: str
    ids: TokenIds

    @classmethod
    async def of(cls, engine: Engine, text: str) -> "Text":
        return cls(text, await text_ids(engine, text))


@dataclass(slots=True)
class Chain:
    """One solution under way."""

    task: Task
    """Its prompt is token ids."""
    engine: Engine
    index: int
    sample: Sample
    """All that was said, also what was put in; its finish reason is that of the last part."""
    ids: TokenIds
    """What is continued: the prompt and all that was said, without what ended it."""
    parts: int = 1

    @property
    def text(self) -> str:
        return self.sample.text

    @property
    def ended(self) -> bool:
        """Whether the model ended it by itself, so that it is whole as it stands."""
        return self.sample.finish_reason == "eos"

    def room(self, forced: int = 0) -> int | None:
        """Tokens that may still be generated after `forced` more were put in; None is no limit."""
        asked, context = self.task.sampling.max_tokens, self.engine.max_model_len
        limits = [
            None if asked is None else asked - self.sample.completion_tokens,
            None if context is None else context - len(self.ids) - forced,
        ]
        return min((limit for limit in limits if limit is not None), default=None)

    def cut(self, end: Text) -> None:
        """Takes a stop string's tokens off the end, where the engine told them."""
        if self.ids[-len(end.ids) :] == end.ids:
            self.ids = self.ids[: -len(end.ids)]

    async def resume(self, forced: Text | None = None, *, limit: int | None = None, stop: tuple[str, ...] = ()) -> bool:
        """Puts a text in and generates on; False if that came to nothing more.

        A chain that was whole stays as it was when it cannot be brought to another end; any other takes what came.

        Args:
            forced: what to put in first; then at least one token follows.
            limit: tokens of this part, at most.
            stop: strings that end it, beside the request's own.
        """
        room = self.room(len(forced.ids) if forced else 0)
        if room is not None and room <= 0:
            if not self.ended:
                self.sample.chunks.append(Chunk(self.index, finish_reason="length"))
            return False
        ids = self.ids + (forced.ids if forced else ())
        prompt = replace(self.task.prompt, token_ids=ids, parents=numbers_of([self.sample]))
        stops, least = self.task.sampling.stop, self._least
        before = tail([self.sample], reach(stops)) + (forced.text if forced else "")
        border = Border(before, () if least else stops)
        part = await ask(self.engine, prompt, self._sampling(limit, room, stop, bool(forced)), self.index, border.ends)
        found = first_stop(before + part.text, stops, len(before) + length_of(part, least))
        if found:
            part = stopped_at(part, found.text)
        limited = part.finish_reason == "length" and limit is not None and (room is None or limit < room)
        if self.ended and not (part.finished or limited):
            return False
        if forced:
            self.put(forced.text, forced.ids)
        self.sample.chunks += part.chunks
        if found:
            self.sample = without_end(self.sample, len(before) + len(part.text) - found.start)
        self.ids = ids + resumable(part)
        self.parts += 1
        return succeeded(part) and part.finish_reason not in ("budget", "content_filter")

    def opened(self, tag: Text) -> bool:
        """Whether its thought stands behind this tag: the model wrote it, or the template at the prompt's end."""
        size = len(tag.ids)
        ids = self.task.prompt.token_ids[-size - 2 :]
        return tag.text in self.text or any(ids[i : i + size] == tag.ids for i in range(len(ids)))

    def put(self, text: str, ids: TokenIds = (), finish_reason: FinishReason | None = None) -> None:
        """Puts a text in that the model did not generate."""
        self.sample.chunks.append(Chunk(self.index, text, ids, finish_reason=finish_reason))

    @property
    def _least(self) -> int:
        """Tokens that must still be generated."""
        return max(0, (self.task.sampling.min_tokens or 0) - self.sample.completion_tokens)

    def _sampling(self, limit: int | None, room: int | None, stop: tuple[str, ...], forced: bool) -> Sampling:
        sampling = self.task.sampling
        limits = [tokens for tokens in (limit, room) if tokens is not None]
        return replace(
            seeded(sampling, self.index, self.parts),
            max_tokens=min(limits, default=None),
            min_tokens=min([max(self._least, int(forced)), *limits]) or None,
            stop=(*stop, *sampling.stop),
        )


def resumable(part: Sample) -> TokenIds:
    """The part's tokens without an end of sequence, which engines count as a token and may or may not tell."""
    ids = part.token_ids
    has_end = part.finish_reason == "eos" and len(ids) == part.completion_tokens
    return ids[:-1] if has_end else ids


async def begin(
    task: Task, engine: Engine, n: int, chains: list[Chain], *, limit: int | None = None, stop: tuple[str, ...] = ()
) -> AsyncGenerator[Progress, None]:
    """Draws the first part of n chains in one call and appends them to `chains`.

    Raises:
        Exception: the first cause, if no chain came to anything.
    """
    ids = await engine.encode(task.prompt)
    sampling = with_temperature(task.sampling) if n > 1 else task.sampling
    task = replace(task, prompt=replace(task.prompt, token_ids=ids), sampling=sampling)
    limits = [tokens for tokens in (limit, sampling.max_tokens) if tokens is not None]
    first = replace(sampling, max_tokens=min(limits, default=None), stop=(*stop, *sampling.stop))
    samples: list[Sample] = []
    async with aclosing(draw(replace(task, sampling=first), engine, n, samples)) as progress:
        async for line in progress:
            yield line
    chains += [Chain(task, engine, i, sample, ids + resumable(sample)) for i, sample in enumerate(samples)]


async def steered(
    task: Task,
    engine: Engine,
    account: Account,
    n: int,
    steer: Callable[[Chain], Coroutine[Any, Any, None]],
    lines: "asyncio.Queue[str | None]",
    *,
    limit: int,
    stop: tuple[str, ...] = (),
) -> AsyncGenerator[Event, None]:
    """Begins n chains, has `steer` bring each to its end while it tells `lines`, and lets the majority decide."""
    chains: list[Chain] = []
    async with aclosing(begin(task, engine, n, chains, limit=limit, stop=stop)) as drawn:
        async for line in drawn:
            yield line
    async with aclosing(telling(together([steer(chain) for chain in chains]), lines)) as progress:
        async for line in progress:
            yield line
    samples = [chain.sample for chain in chains]
    raise_if_all_failed(samples)
    yield await elect(candidates_of(samples), "majority", account.seconds_left)
