import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from strategies.core.contracts import Prompt
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.engines.replication.breaker import Breaker
from tts_server.engines.replication.routing import Homes, Replica, Turns
from tts_server.errors import EngineUnavailable, UpstreamError
from tts_server.upstream.errors import Busy, Unreached


class Clock:
    """Stands until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def replicas(n: int) -> list[Replica]:
    return [Replica(OpenAIEngine(f"http://127.0.0.1:{9000 + i}/v1"), Breaker(clock=Clock())) for i in range(n)]


def prompts(n: int) -> list[Prompt]:
    return [Prompt(token_ids=tuple(range(i * 1000, i * 1000 + 40))) for i in range(n)]


def chosen(asked: Sequence[Prompt], among: Sequence[Replica], homes: Homes | None = None) -> list[Replica]:
    homes = homes or Homes()
    return [homes.choose(prompt, among) for prompt in asked]


def test_prompts_are_spread_and_every_server_spreads_them_alike() -> None:
    some = replicas(4)
    first = chosen(prompts(400), some)
    assert first == chosen(prompts(400), some[::-1])
    assert all(60 < count < 140 for count in Counter(replica.origin for replica in first).values())


def test_a_replica_that_leaves_moves_only_what_was_at_home_there() -> None:
    some = replicas(4)
    before = chosen(prompts(400), some)
    after = chosen(prompts(400), some[1:])
    assert all(now is was for was, now in zip(before, after, strict=True) if was is not some[0])
    orphans = [now for was, now in zip(before, after, strict=True) if was is some[0]]
    assert set(orphans) == set(some[1:])


def test_branches_stay_where_their_prompt_is() -> None:
    some = replicas(8)
    homes = Homes()
    for prompt in prompts(20):
        home = homes.choose(prompt, some)
        steps = [Prompt(token_ids=(*prompt.token_ids, *range(branch))) for branch in range(30)]
        assert set(chosen(steps, some, homes)) == {home}
        deeper = [Prompt(token_ids=(*step.token_ids, 7, 8, 9)) for step in steps]
        assert set(chosen(deeper, some, homes)) == {home}


def test_a_conversation_stays_where_it_began() -> None:
    some = replicas(8)
    homes = Homes()
    for i in range(20):
        turns = [{"role": "user", "content": f"Question {i}: " + "why? " * 20}]
        home = homes.choose(Prompt(tuple(turns)), some)
        turns += [{"role": "assistant", "content": "Because."}, {"role": "user", "content": "Sure?"}]
        assert homes.choose(Prompt(tuple(turns)), some) is home


def test_what_moved_stays_where_it_moved() -> None:
    some = replicas(3)
    homes = Homes()
    (prompt,) = prompts(1)
    home = homes.choose(prompt, some)
    others = [replica for replica in some if replica is not home]
    moved = homes.choose(prompt, others)
    assert moved is not home
    assert homes.choose(prompt, some) is moved


def test_all_that_have_little_in_common_have_different_homes() -> None:
    some = replicas(4)
    homes = Homes()
    homes.choose(Prompt(token_ids=(1, 2)), some)
    asked = [Prompt(token_ids=(1, 2, *prompt.token_ids)) for prompt in prompts(40)]
    assert set(chosen(asked, some, homes)) == set(some)


def test_a_replica_with_much_more_to_do_is_passed_over() -> None:
    some = replicas(2)
    homes = Homes()
    known, new = prompts(2)
    home = homes.choose(known, some)
    (other,) = [replica for replica in some if replica is not home]
    home.live = 32
    assert homes.choose(known, some) is home
    home.live, other.live = 60, 30
    assert homes.choose(known, some) is home
    home.live, other.live = 61, 30
    assert homes.choose(known, some) is other
    home.live, other.live = 30, 0
    assert homes.choose(new, some) is other


def test_turns_go_from_one_replica_to_the_next_and_then_round_again() -> None:
    some = replicas(2)

    async def main() -> None:
        turns = Turns(some, retries=1, backoff_s=0.001)
        for expected in ([0, 1], [1], [0, 1], [1]):
            candidates = await turns.candidates()
            assert candidates == [some[i] for i in expected]
            turns.take(candidates[0])
            turns.lose(candidates[0], Unreached("not there"))
        with pytest.raises(Unreached, match="not there"):
            await turns.candidates()
        assert [(each.retried, each.failovers) for each in some] == [(1, 2), (1, 1)]

    asyncio.run(main())


def test_a_call_that_breaks_whoever_gets_it_does_not_go_to_all() -> None:
    some = replicas(9)

    async def main() -> None:
        turns = Turns(some, retries=2, backoff_s=0.001)
        for replica in some[:2]:
            turns.lose(replica, UpstreamError("died"))
        for replica in some[2:5]:
            turns.lose(replica, Busy("later", None))
        with pytest.raises(UpstreamError, match="died too"):
            turns.lose(some[5], UpstreamError("died too"))

    asyncio.run(main())


def test_a_busy_replica_is_left_alone_for_as_long_as_it_asked() -> None:
    (busy, other) = replicas(2)
    clock = busy.breaker._clock
    assert isinstance(clock, Clock)

    async def main() -> None:
        for _ in range(9):
            busy.fail(Busy("later", 20.0))
        assert busy.healthy
        assert await Turns([busy, other], retries=0, backoff_s=0.0).candidates() == [other]
        other.breaker.open()
        with pytest.raises(EngineUnavailable, match="1 down, 1 busy"):
            await Turns([busy, other], retries=0, backoff_s=0.0).candidates()
        clock.now = 20.0
        assert await Turns([busy, other], retries=0, backoff_s=0.0).candidates() == [busy]

    asyncio.run(main())


def test_who_wants_to_be_left_alone_for_long_is_not_waited_for() -> None:
    (busy,) = replicas(1)

    async def main() -> None:
        turns = Turns([busy], retries=2, backoff_s=0.001)
        turns.lose(busy, Busy("come back tomorrow", 86400.0))
        with pytest.raises(Busy, match="tomorrow") as caught:
            await turns.candidates()
        assert caught.value.headers["Retry-After"] == "86400"

    asyncio.run(main())
