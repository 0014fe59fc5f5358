"""The end of a server."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from serving import ask, frames, serving, until

from strategies.core.account import Account, Budget
from strategies.core.contracts import Candidate, Chunk, Event, Final, Incumbent, Progress, Sample
from strategies.core.search_events import anytime
from tts_server.admission.shutdown import Drain
from tts_server.app import create_app
from tts_server.app_state import AppState
from tts_server.engines.fake import FakeEngine

BEST = Candidate(Sample([Chunk(0, "4", finish_reason="eos")]))


def account(tokens: int, deadline_s: float | None = None) -> Account:
    made = Account(Budget(deadline_s=deadline_s))
    made.usage.completion_tokens = tokens
    return made


async def stuck(first: Event) -> AsyncGenerator[Event, None]:
    """A search that waits for something that nobody meters."""
    yield first
    await asyncio.Event().wait()


async def end_of(events: AsyncGenerator[Event, None]) -> Event:
    return [event async for event in events][-1]


def test_what_is_under_way_is_told_its_deadline_at_once() -> None:
    async def main() -> None:
        drain = Drain()
        begun, new, hasty = account(10), account(0), account(10, deadline_s=1)
        drain.searches = {id(each): each for each in (begun, new, hasty)}
        assert not drain.begun
        drain.begin(40)
        assert drain.begun
        assert not drain.is_over
        assert begun.seconds_left == pytest.approx(38, abs=1)
        # What has generated nothing is to be asked again elsewhere.
        assert new.seconds_left is None
        assert hasty.seconds_left == pytest.approx(1, abs=1)

    asyncio.run(main())


def test_a_search_that_does_not_listen_ends_with_its_incumbent() -> None:
    async def main() -> None:
        drain = Drain()
        late = account(10)
        drain.searches = {id(late): late}
        ending = asyncio.create_task(end_of(anytime(stuck(Incumbent(BEST)), late)))
        await asyncio.sleep(0)
        drain.begin(0.08)
        final = await ending
        assert isinstance(final, Final)
        assert final.candidates == (BEST,)
        assert late.stop_reason == "deadline"

    asyncio.run(main())


def test_who_is_cancelled_is_not_answered_for_having_been_cut_as_well() -> None:
    async def main() -> None:
        late = account(10)
        ending = asyncio.create_task(end_of(anytime(stuck(Progress("…")), late)))
        await asyncio.sleep(0)
        late.deadline.bring_forward(0)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending

    asyncio.run(main())


def test_a_search_within_its_deadline_is_not_cut() -> None:
    async def main() -> None:
        early = account(10, deadline_s=60)
        ending = asyncio.create_task(end_of(anytime(stuck(Progress("…")), early)))
        await asyncio.sleep(0)
        early.deadline.bring_forward(120)
        await asyncio.sleep(0)
        assert not ending.done()
        ending.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["single", "self_consistency"])
def test_running_requests_answer_with_what_they_have(strategy: str) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda request: "word " * 10_000, token_s=0.01)
        app = create_app(engine)
        drain = AppState.of(app).drain
        async with serving(app=app) as client:
            whole = asyncio.create_task(ask(client, tts={"strategy": strategy}))
            stream = asyncio.create_task(frames(client, tts={"strategy": strategy}))
            await until(lambda: engine.generated > 20)
            await until(lambda: len(drain.searches) == 2)
            drain.begin(0.4)
            told = (await whole).json()
            assert told["tts"]["stop_reason"] == "deadline"
            assert told["choices"][0]["finish_reason"] == "length"
            assert told["choices"][0]["message"]["content"].startswith("word")
            chunks = await stream
            assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == [
                "length"
            ]
            assert drain.searches == {}
            assert engine.live == 0

    asyncio.run(main())
