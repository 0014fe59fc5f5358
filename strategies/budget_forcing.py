"""Budget forcing: a thought that is made longer or shorter than the model would have it (s1, 2501.19393)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Task
from strategies.core.options import ChainCount
from strategies.search.steered_chains import Chain, Text, ThinkClose, ThinkOpen, steered


@strategy("budget_forcing", paper="2501.19393", continues=True, edits=True)
async def budget_forcing(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: ChainCount = 1,
    min_waits: Annotated[
        int, Field(ge=0, le=100, description="How often the end of the thought is put off by `wait`.")
    ] = 1,
    wait: Annotated[str, Field(min_length=1, max_length=1000, description="What is put in place of an end.")] = "Wait",
    max_thinking_tokens: Annotated[
        int, Field(ge=1, description="Tokens of the thought; one that reaches them is closed.")
    ] = 32_000,
    answer_prompt: Annotated[
        str, Field(min_length=1, max_length=1000, description="What asks for the answer after a thought was closed.")
    ] = "\n\nFinal Answer:",
    think_open: ThinkOpen = "<think>",
    think_close: ThinkClose = "</think>",
) -> AsyncGenerator[Event, None]:
    """Puts a thought's end off with "Wait", or closes it at a limit, then lets the model answer.

    A model without think tags thinks in its whole answer: its end is put off, and at the limit only the answer prompt
    follows.
    """
    forcing = Forcing(
        min_waits,
        max_thinking_tokens,
        wait=await Text.of(engine, wait),
        answer_prompt=await Text.of(engine, answer_prompt),
        think_open=await Text.of(engine, think_open),
        think_close=await Text.of(engine, think_close),
    )
    chains = steered(
        task, engine, account, n, forcing.force, forcing.lines, limit=max_thinking_tokens, stop=(think_close,)
    )
    async with aclosing(chains) as events:
        async for event in events:
            yield event


@dataclass(frozen=True, slots=True)
class Forcing:
    """What is forced on every chain of one request."""

    min_waits: int
    max_thinking_tokens: int
    wait: Text
    answer_prompt: Text
    think_open: Text
    think_close: Text
    lines: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)

    async def force(self, chain: Chain) -> None:
        """Brings a chain whose first part is there to its end."""
        waits = 0
        while self._thought_over(chain) and waits < self.min_waits and (left := self._left(chain)) > 0:
            waits += 1
            self._tell(chain, f"is made to go on ({waits} of {self.min_waits})")
            chain.cut(self.think_close)
            if not await chain.resume(self.wait, limit=left, stop=(self.think_close.text,)):
                break
        if self._closed(chain):
            chain.cut(self.think_close)
            await chain.resume(self.think_close)
        elif chain.sample.finish_reason == "length" and self._left(chain) <= 0:
            self._tell(chain, "has thought enough and is asked for its answer")
            await self._ask(chain)

    async def _ask(self, chain: Chain) -> None:
        """Closes the thought at its limit and has the answer follow."""
        close, ask = self.think_close, self.answer_prompt
        forced = Text(close.text + ask.text, close.ids + ask.ids) if chain.opened(self.think_open) else ask
        await chain.resume(forced)

    def _closed(self, chain: Chain) -> bool:
        """Whether the model has just closed its thought."""
        end = chain.sample.chunks[-1]
        return end.finish_reason == "stop" and end.stop == self.think_close.text

    def _thought_over(self, chain: Chain) -> bool:
        return chain.ended or self._closed(chain)

    def _left(self, chain: Chain) -> int:
        return self.max_thinking_tokens - chain.sample.completion_tokens

    def _tell(self, chain: Chain, line: str) -> None:
        self.lines.put_nowait(f"chain {chain.index + 1} {line} after {chain.sample.completion_tokens} tokens")
