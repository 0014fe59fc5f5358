"""Whatever a strategy waits for, an answer is there at the deadline."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from searching import TASK, begin, world
from virtual_time import in_virtual_time

from prm import FakePRM
from strategies import get
from strategies.core.account import Account, Budget, BudgetSpent
from strategies.core.contracts import Candidate, Chunk, Event, Final, Incumbent, Progress, Prompt, Sample, TokenIds
from strategies.core.search_events import GRACE_S, anytime
from tts_server.engines.fake import FakeEngine
from tts_server.errors import EngineUnavailable

GOOD = Candidate(Sample([Chunk(0, text="It is 4.", completion_tokens=4, finish_reason="eos")]), "4")


async def hangs(*, with_incumbent: bool) -> AsyncGenerator[Event, None]:
    """Waits for something that no account meters."""
    yield Progress("it begins")
    if with_incumbent:
        yield Incumbent(GOOD)
    await asyncio.sleep(3600)
    yield Final((GOOD,), (0,))


async def lets_through() -> AsyncGenerator[Event, None]:
    yield Incumbent(GOOD)
    raise BudgetSpent("max_tokens")


def run(events: AsyncGenerator[Event, None], account: Account) -> list[Event]:
    async def main() -> list[Event]:
        async with aclosing(anytime(events, account)) as all_of_them:
            return [event async for event in all_of_them]

    return in_virtual_time(main())


def late(deadline_s: float | None) -> Account:
    # The virtual clock begins at 1000 s.
    return Account(Budget(deadline_s=deadline_s), started=1000.0)


def test_the_incumbent_answers_for_a_strategy_that_is_late() -> None:
    account = late(2.0)
    *_, final = run(hangs(with_incumbent=True), account)
    assert isinstance(final, Final)
    assert final.best == GOOD
    assert account.stop_reason == "deadline"


def test_without_an_incumbent_there_is_an_empty_answer() -> None:
    *_, final = run(hangs(with_incumbent=False), late(2.0))
    assert isinstance(final, Final)
    assert final.best.text == ""
    assert final.best.sample.finish_reason == "budget"


def test_it_waits_no_longer_than_the_grace() -> None:
    async def main() -> float:
        account = Account(Budget(deadline_s=2.0))
        async with aclosing(anytime(hangs(with_incumbent=True), account)) as events:
            async for _ in events:
                pass
        return account.wall_s

    assert in_virtual_time(main()) == pytest.approx(2.0 + GRACE_S)


def test_without_a_deadline_a_strategy_has_all_the_time() -> None:
    account = late(None)
    *_, final = run(hangs(with_incumbent=False), account)
    assert final == Final((GOOD,), (0,))
    assert account.stop_reason is None


def test_an_end_of_the_budget_that_a_strategy_lets_through_is_no_failure() -> None:
    account = late(None)
    incumbent, final = run(lets_through(), account)
    assert isinstance(final, Final)
    assert isinstance(incumbent, Incumbent)
    assert final.best == GOOD


def test_a_time_out_of_the_strategy_s_own_is_a_failure() -> None:
    async def fails() -> AsyncGenerator[Event, None]:
        yield Progress("it begins")
        raise TimeoutError("the upstream says nothing")

    with pytest.raises(TimeoutError, match="upstream"):
        run(fails(), late(2.0))


def test_what_a_strategy_gives_goes_through_as_it_is() -> None:
    async def main() -> list[list[Event]]:
        seen = []
        for wrap in (False, True):
            account = Account()
            events = begin(get("beam_search"), FakeEngine(world()), FakePRM(), account=account, n=4)
            async with aclosing(anytime(events, account) if wrap else events) as given:
                seen.append([event async for event in given])
        return seen

    plain, wrapped = asyncio.run(main())
    assert wrapped == plain


def test_closing_it_closes_the_strategy() -> None:
    closed = []

    async def watched() -> AsyncGenerator[Event, None]:
        try:
            yield Progress("one")
            yield Progress("two")
        finally:
            closed.append(True)

    async def main() -> None:
        async with aclosing(anytime(watched(), Account())) as events:
            async for _ in events:
                break

    asyncio.run(main())
    assert closed


@pytest.mark.parametrize("name", ["beam_search", "budget_forcing"])
def test_an_engine_that_hangs_before_the_first_token_is_left_at_the_deadline(name: str) -> None:
    class Hanging(FakeEngine):
        async def encode(self, prompt: Prompt) -> TokenIds:
            await asyncio.sleep(3600)
            return ()

    async def main() -> tuple[list[Event], Account]:
        account = Account(Budget(deadline_s=1.0))
        events = anytime(begin(get(name), Hanging(world()), FakePRM(), task=TASK, account=account), account)
        return [event async for event in events], account

    (*_, final), account = in_virtual_time(main())
    assert isinstance(final, Final)
    assert final.best.sample.finish_reason == "budget"
    assert account.stop_reason == "deadline"


async def loses_its_engine(*, with_incumbent: bool) -> AsyncGenerator[Event, None]:
    if with_incumbent:
        yield Incumbent(GOOD)
    raise EngineUnavailable("the engine has died")


def test_the_incumbent_answers_for_a_search_whose_engine_is_gone() -> None:
    account = Account()
    *_, final = run(loses_its_engine(with_incumbent=True), account)
    assert isinstance(final, Final)
    assert final.best == GOOD
    assert account.stop_reason == "engine"


def test_without_an_incumbent_the_search_fails_as_its_engine_does() -> None:
    account = Account()
    with pytest.raises(EngineUnavailable, match="has died"):
        run(loses_its_engine(with_incumbent=False), account)
    assert account.stop_reason is None
