"""Records of searches for tests of what keeps and shows them."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from searching import TASK, begin, world

import strategies
from prm import FakePRM
from strategies.core.account import Account
from strategies.core.contracts import Engine, Task
from strategies.core.search_events import watched
from strategies.record.recorder import Recorder
from tts_server.engines.fake import FakeEngine
from tts_server.observe.traces.recording import Record
from tts_server.planning.plan import Plan


def record_of(
    strategy: str = "self_consistency",
    *,
    id: str = "trace-1",  # noqa: A002  as the record calls it
    engine: Engine | None = None,
    task: Task = TASK,
    owner: str = "",
    created: float | None = None,
    **options: Any,
) -> Record:
    """The record of a search that has ended."""
    entry, account = strategies.get(strategy), Account()
    few: Mapping[str, Any] = {"n": 4, **options} if "n" in entry.options.model_fields else options
    recorder = account.recorder = Recorder(task.prompt, account.deadline.started)
    prm = FakePRM() if entry.scored else None
    begun = begin(entry, engine or FakeEngine(world()), prm, task=task, account=account, **few)

    async def main() -> None:
        async with aclosing(watched(begun, account)) as events:
            async for _ in events:
                pass

    asyncio.run(main())
    checked = entry.options.model_validate(few)
    complete = {name: getattr(checked, name) for name in entry.options.model_fields}
    plan = Plan(strategy, task.choices, None, account, lambda: begun, task, complete, prm.name if prm else None)
    when = {} if created is None else {"created": created}
    return Record(id, "fake", plan, recorder, owner, "request-1", **when)
