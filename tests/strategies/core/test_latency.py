"""What generating and scoring take is learned from what accounts pay for."""

import asyncio
import time
from contextlib import aclosing, suppress

import pytest
from searching import TASK, search, world
from virtual_time import in_virtual_time

from prm import FakePRM, OnTokens, PRMError, StepScores
from strategies import get
from strategies.core.account import Account, Budget, BudgetSpent
from strategies.core.contracts import Chunk
from strategies.core.deadline import Deadline
from strategies.core.latency import FADE_S, CallTimer, EngineLatency, Latencies, Latency, Recent
from strategies.core.metered import MeteredEngine, MeteredPRM
from tts_server.engines.fake import FakeEngine


def test_a_mean_of_nothing_is_unknown() -> None:
    assert Recent().mean is None
    assert Latency().seconds_per_token is None
    assert Latency().prm_seconds_per_token is None
    assert Latency().finish_s(100) is None


def test_a_mean_weighs_observations_by_their_count() -> None:
    recent = Recent()
    recent.add(1.0, 10, at=0.0)
    recent.add(0.5, 20, at=0.5)
    assert recent.mean == pytest.approx(1.5 / 30)


def test_old_observations_fade() -> None:
    recent = Recent()
    recent.add(1.0, at=0.0)
    recent.add(3.0, at=FADE_S)
    assert recent.mean == pytest.approx((3 + 1 / 2.718281828) / (1 + 1 / 2.718281828))
    recent.add(7.0, at=1e6)
    assert recent.mean == pytest.approx(7.0, rel=1e-5)


def test_an_idle_server_still_knows_it() -> None:
    recent = Recent()
    recent.add(2.0, at=0.0)
    recent.add(0.0, 0.0, at=1e7)
    assert recent.mean == pytest.approx(2.0)


def test_what_was_cut_short_never_lowers_the_mean() -> None:
    recent = Recent()
    recent.add(4.0, at=0.0)
    recent.add_at_least(1.0)
    assert recent.mean == pytest.approx(4.0)
    recent.add_at_least(12.0)
    assert recent.mean > 4.0


def drawn(account: Account, engine: FakeEngine, n: int = 1) -> list[Chunk]:
    async def main() -> list[Chunk]:
        account.deadline = Deadline(account.budget.deadline_s, time.monotonic())
        async with aclosing(MeteredEngine(engine, account).generate(TASK.prompt, TASK.sampling, n)) as chunks:
            return [chunk async for chunk in chunks]

    return in_virtual_time(main())


@pytest.mark.parametrize(("n", "chunk_tokens"), [(1, 1), (4, 1), (4, 3)])
def test_seconds_a_token_are_those_of_one_branch(n: int, chunk_tokens: int) -> None:
    account = Account()
    drawn(account, FakeEngine(lambda request: "word " * 60, token_s=0.03, chunk_tokens=chunk_tokens), n)
    assert account.latency.seconds_per_token == pytest.approx(0.03 / chunk_tokens, rel=0.05)
    assert account.latency.engine.first.mean == pytest.approx(0.03)
    assert account.latency.finish_s(100) == pytest.approx(0.03 + 100 * account.latency.seconds_per_token)


def test_the_tokens_of_whole_answers_are_known() -> None:
    account = Account()
    (*_, last) = drawn(account, FakeEngine(lambda request: "one two three", token_s=0.01))
    assert last.finish_reason == "eos"
    assert account.latency.answer_tokens == account.usage.completion_tokens


def test_an_engine_that_says_nothing_until_the_deadline_takes_as_long_at_least() -> None:
    account = Account(Budget(deadline_s=2))
    chunks = drawn(account, FakeEngine(world(), token_s=3600))
    assert [chunk.finish_reason for chunk in chunks] == ["budget"]
    assert account.latency.engine.first.mean == pytest.approx(2, rel=0.01)


def test_what_a_call_gave_before_its_end_counts() -> None:
    latency = EngineLatency()

    async def main() -> None:
        timer = CallTimer(latency)
        for tokens in range(1, 4):
            timer.note(Chunk(0, completion_tokens=1), tokens)
            await asyncio.sleep(0.1)
        assert latency.token.mean == pytest.approx(0.1)
        timer.ended()

    in_virtual_time(main())
    assert latency.answer.mean is None


def test_scoring_takes_what_its_calls_took() -> None:
    account = Account()

    async def main() -> None:
        prm = MeteredPRM(FakePRM(delay_s=0.4, tokens=10), account)
        await prm.score("Q", [("a", "b"), ("a",)])

    in_virtual_time(main())
    assert account.latency.prm_seconds_per_call == pytest.approx(0.4)
    assert account.latency.prm_seconds_per_token == pytest.approx(0.02)


def test_a_scoring_that_the_deadline_cut_takes_as_long_at_least() -> None:
    account = Account(Budget(deadline_s=1.5))

    async def main() -> None:
        account.deadline = Deadline(account.budget.deadline_s, time.monotonic())
        with suppress(BudgetSpent):
            await MeteredPRM(FakePRM(delay_s=3600), account).score("Q", [("a",)])

    in_virtual_time(main())
    assert account.latency.prm_seconds_per_call == pytest.approx(1.5)
    assert account.latency.prm_seconds_per_token is None


def test_a_scoring_that_fails_tells_nothing() -> None:
    class Broken(FakePRM):
        async def score(
            self, question: str, solutions: object, *, on_tokens: OnTokens | None = None
        ) -> list[StepScores]:
            raise PRMError("gone")

    account = Account()
    with pytest.raises(PRMError):
        asyncio.run(MeteredPRM(Broken(), account).score("Q", [("a",)]))
    assert account.latency.prm_seconds_per_call is None


def test_requests_share_what_is_known_of_an_engine_and_of_their_reward_model() -> None:
    latencies = Latencies()
    one, other, same = latencies.of("a"), latencies.of("b"), latencies.of("a")
    assert one.engine is other.engine is latencies.engine
    assert one.prm is same.prm is not other.prm


def test_a_search_feeds_it() -> None:
    async def main() -> Latency:
        engine = FakeEngine(world(gap=3), token_s=0.02)
        done = await search(get("beam_search"), engine, FakePRM(delay_s=0.1), n=4)
        return done.account.latency

    latency = in_virtual_time(main())
    assert latency.seconds_per_token == pytest.approx(0.02, rel=0.1)
    assert latency.prm_seconds_per_call == pytest.approx(0.1)
    assert latency.answer_tokens is not None
