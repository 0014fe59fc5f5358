"""Early exit: stop thinking once the answer no longer changes (Dynasor's probes and certaindex, 2412.20993)."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Annotated

from pydantic import Field

from prm import ProcessRewardModel
from strategies import strategy
from strategies.answers import canonical, extract
from strategies.core.account import Account
from strategies.core.contracts import Engine, Event, Task
from strategies.core.options import ChainCount
from strategies.core.parents import numbers_of
from strategies.sampling.dialogue import aside, ask, seeded
from strategies.search.steered_chains import Chain, Text, ThinkClose, ThinkOpen, steered

PROBE = "... So by now I know the answer to the whole problem.\n\n**Final Answer**\n\n\\[ \\boxed{"
HESITATION = re.compile(r"\b(?:wait|hold|but|okay|no|hmm)\b", re.IGNORECASE)


@strategy("early_exit", paper="2412.20993", continues=True, edits=True)
async def early_exit(
    task: Task,
    engine: Engine,
    prm: ProcessRewardModel | None,
    account: Account,
    *,
    n: ChainCount = 1,
    every: Annotated[int, Field(ge=1, description="Tokens between two probes.")] = 64,
    agree: Annotated[int, Field(ge=1, le=100, description="Probes in a row that must give one answer.")] = 3,
    probe: Annotated[
        str, Field(min_length=1, max_length=1000, description="What makes the model name its answer before its time.")
    ] = PROBE,
    probe_tokens: Annotated[int, Field(ge=1, description="Tokens of a probe's answer.")] = 20,
    think_open: ThinkOpen = "<think>",
    think_close: ThinkClose = "</think>",
) -> AsyncGenerator[Event, None]:
    """Probes a thought for its answer as it grows, and ends it with that answer once several probes agree.

    The thought is generated from probe to probe, so nothing is generated past an agreement. A probe continues a copy
    of it; its tokens are counted and not returned.
    """
    exit_ = Exit(
        account,
        every,
        agree,
        await Text.of(engine, probe),
        probe_tokens,
        await Text.of(engine, think_open),
        think_close,
    )
    async with aclosing(steered(task, engine, account, n, exit_.watch, exit_.lines, limit=every)) as events:
        async for event in events:
            yield event


@dataclass(frozen=True, slots=True)
class Exit:
    """When the chains of one request are left."""

    account: Account
    every: int
    agree: int
    probe: Text
    probe_tokens: int
    think_open: Text
    think_close: str
    lines: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)

    async def watch(self, chain: Chain) -> None:
        """Brings a chain whose first part is there to its end, or to its exit."""
        last: list[str | None] = []
        while self._stands(chain):
            if self.think_close in chain.text:
                # The thought is over, and what follows is the answer itself.
                await chain.resume()
                return
            answer = await self._probed(chain)
            key = None if answer is None else (await canonical([answer], self.account.seconds_left))[0]
            last = [*last, key][-self.agree :]
            if answer is not None and last == [key] * self.agree:
                self._tell(chain, f"has had the answer {answer} {self.agree} times and is ended")
                self._end(chain, answer)
                return
            await chain.resume(limit=self.every)

    def _stands(self, chain: Chain) -> bool:
        """Whether it stands at a probe's place, and not at its end."""
        room = chain.room()
        return chain.sample.finish_reason == "length" and (room is None or room > 0)

    async def _probed(self, chain: Chain) -> str | None:
        """The answer that the model would give now; None where it gives none or hesitates."""
        ids = chain.ids + self.probe.ids
        prompt = replace(chain.task.prompt, token_ids=ids, parents=numbers_of([chain.sample]))
        sampling = seeded(aside(chain.task.sampling, self.probe_tokens), "probe", chain.index, chain.parts)
        reply = await ask(chain.engine, prompt, sampling)
        answer = extract(self.probe.text + reply.text, truncated=not reply.finished)
        sure = not HESITATION.search(reply.text)
        self._tell(chain, f"would {'' if sure else 'perhaps '}answer {answer or 'nothing'}")
        return answer if sure else None

    def _end(self, chain: Chain, answer: str) -> None:
        close = self.think_close if chain.opened(self.think_open) else ""
        chain.put(f"{close}\n\n**Final Answer**\n\n\\[ \\boxed{{{answer}}} \\]", finish_reason="stop")

    def _tell(self, chain: Chain, line: str) -> None:
        self.lines.put_nowait(f"chain {chain.index + 1} {line} after {chain.sample.completion_tokens} tokens")
