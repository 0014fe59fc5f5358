import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import NEVER_S
from searching import TASK, world

from prm import FakePRM, OnTokens, PRMError, PRMInputError, StepScores
from strategies.core.account import Account, Budget, BudgetSpent, StopReason, Usage
from strategies.core.contracts import Chunk, Engine, Prompt, Sampling, TokenIds
from strategies.core.metered import MeteredEngine, MeteredPRM
from tts_server.engines.fake import FakeEngine

STEPS = [["one two", "three"], ["four"]]


class ScriptedEngine(FakeEngine):
    """Gives these chunks, then fails, hangs or just ends."""

    def __init__(self, *chunks: Chunk, hangs: bool = False, error: Exception | None = None) -> None:
        super().__init__()
        self.closed = 0
        self._chunks = chunks
        self._hangs = hangs
        self._error = error

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        try:
            for chunk in self._chunks:
                await asyncio.sleep(0)
                yield chunk
            if self._error:
                raise self._error
            if self._hangs:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


async def drawn(account: Account, engine: Engine, n: int = 1, sampling: Sampling = TASK.sampling) -> list[Chunk]:
    async with aclosing(MeteredEngine(engine, account).generate(TASK.prompt, sampling, n)) as chunks:
        return [chunk async for chunk in chunks]


def ends(chunks: Sequence[Chunk]) -> dict[int, str]:
    return {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason}


def test_without_a_budget_nothing_changes() -> None:
    account, engine = Account(), FakeEngine(world())
    metered = MeteredEngine(engine, account)
    assert (metered.model, metered.max_model_len, metered.continues) == ("fake", 32768, True)

    async def main() -> None:
        async with aclosing(engine.generate(TASK.prompt, TASK.sampling, 3)) as chunks:
            plain = [chunk async for chunk in chunks]
        assert await drawn(account, engine, 3) == plain
        assert await metered.encode(TASK.prompt) == await engine.encode(TASK.prompt)

    asyncio.run(main())
    assert account.stop_reason is None
    assert account.seconds_left is account.tokens_left is account.samples_left is None


def test_every_sample_is_counted_and_the_first_prompt_once() -> None:
    first = (Chunk(1, "a", (), 1, prompt_tokens=10, cached_tokens=4), Chunk(0, "b", (), 2, prompt_tokens=10))
    both = (*first, Chunk(0, finish_reason="eos", completion_tokens=1), Chunk(1, "c", (), 3, finish_reason="length"))
    later = Chunk(0, "d", (), 5, prompt_tokens=20, cached_tokens=20, finish_reason="stop")
    account = Account()

    async def main() -> None:
        await drawn(account, ScriptedEngine(*both), 2)
        await drawn(account, ScriptedEngine(later))

    asyncio.run(main())
    assert account.usage == Usage(
        prompt_tokens=10,
        cached_tokens=4,
        engine_prompt_tokens=40,
        cached_prompt_tokens=24,
        completion_tokens=12,
        samples=3,
    )


@settings(max_examples=50, deadline=None, derandomize=True)
@given(limit=st.integers(1, 80), n=st.integers(1, 4), chunk_tokens=st.integers(1, 5))
def test_tokens_stop_at_the_first_chunk_that_reaches_the_limit(limit: int, n: int, chunk_tokens: int) -> None:
    account, engine = Account(Budget(max_tokens=limit)), FakeEngine(world(gap=2), chunk_tokens=chunk_tokens)
    chunks = asyncio.run(drawn(account, engine, n))
    spent = account.usage.completion_tokens
    assert spent == sum(chunk.completion_tokens for chunk in chunks) == engine.generated
    assert spent <= limit + chunk_tokens
    assert set(ends(chunks)) == set(range(n))
    cut = "budget" in ends(chunks).values()
    assert cut == (account.stop_reason == "max_tokens")
    assert not cut or spent >= limit
    assert engine.live == 0


def test_a_limit_that_is_reached_by_the_last_token_cuts_nothing() -> None:
    engine = FakeEngine(lambda request: "abc")
    account = Account(Budget(max_tokens=2, max_samples=1))
    chunks = asyncio.run(drawn(account, engine))
    assert ends(chunks) == {0: "eos"}
    assert account.stop_reason is None
    assert (account.tokens_left, account.samples_left) == (0, 0)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(max_samples=0), "max_samples"),
        (Budget(max_tokens=0), "max_tokens"),
        (Budget(deadline_s=0), "deadline"),
        (Budget(max_tokens=0, max_samples=0), "max_tokens"),
        (Budget(max_tokens=0, deadline_s=0), "deadline"),
    ],
)
def test_a_call_that_cannot_begin_says_why(budget: Budget, reason: StopReason) -> None:
    account, engine = Account(budget), FakeEngine(world())
    with pytest.raises(BudgetSpent, match=reason) as caught:
        asyncio.run(drawn(account, engine, 2))
    assert caught.value.reason == account.stop_reason == reason
    assert account.usage == Usage()
    assert engine.generated == 0


def test_the_samples_that_are_left_are_drawn() -> None:
    account = Account(Budget(max_samples=5))
    engine = FakeEngine(world())

    async def main() -> None:
        assert set(ends(await drawn(account, engine, 3))) == {0, 1, 2}
        assert account.stop_reason is None
        assert set(ends(await drawn(account, engine, 3))) == {0, 1}
        assert account.stop_reason == "max_samples"
        assert account.samples_left == 0
        with pytest.raises(BudgetSpent):
            await drawn(account, engine, 1)

    asyncio.run(main())
    assert account.usage.samples == 5


def test_only_the_first_reason_is_kept() -> None:
    account = Account(Budget(max_samples=1, max_tokens=3))

    async def main() -> None:
        await drawn(account, FakeEngine(world()))
        account.budget = Budget(max_samples=1)
        with pytest.raises(BudgetSpent) as caught:
            await drawn(account, FakeEngine(world()))
        assert caught.value.reason == "max_samples"

    asyncio.run(main())
    assert account.stop_reason == "max_tokens"


def test_a_hanging_engine_is_left_at_the_deadline() -> None:
    engine = ScriptedEngine(Chunk(1, "word", (), 1, prompt_tokens=3), hangs=True)
    account = Account(Budget(deadline_s=0.05))

    async def main() -> list[Chunk]:
        async with asyncio.timeout(NEVER_S):
            return await drawn(account, engine, 2)

    chunks = asyncio.run(main())
    assert ends(chunks) == {0: "budget", 1: "budget"}
    assert account.stop_reason == "deadline"
    assert account.seconds_left == 0
    assert account.usage.completion_tokens == 1
    assert engine.closed == 1


@pytest.mark.parametrize("wait", ["generate", "encode", "score"])
def test_a_timer_that_fires_before_the_clock_says_so_is_the_deadline(
    wait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(ScriptedEngine):
        async def encode(self, prompt: Prompt) -> TokenIds:
            await asyncio.Event().wait()
            return ()

    async def main(account: Account) -> None:
        engine = MeteredEngine(Hanging(hangs=True), account)
        match wait:
            case "generate":
                async with aclosing(engine.generate(TASK.prompt, TASK.sampling)) as chunks:
                    assert [chunk.finish_reason async for chunk in chunks] == ["budget"]
            case "encode":
                with pytest.raises(BudgetSpent):
                    await engine.encode(TASK.prompt)
            case _:
                with pytest.raises(BudgetSpent):
                    await MeteredPRM(FakePRM(delay_s=3600), account).score("Q", STEPS)

    account = Account(Budget(deadline_s=0.02))
    # The clock of the deadline is behind the event loop's, as that of a busy loop is ahead.
    monkeypatch.setattr("strategies.core.deadline.time", SimpleNamespace(monotonic=lambda: account.deadline.started))
    asyncio.run(main(account))
    assert account.stop_reason == "deadline"
    assert account.seconds_left == 0


def test_a_timeout_of_the_engine_itself_is_its_error() -> None:
    engine = ScriptedEngine(Chunk(0, "word", (), 1), error=TimeoutError("upstream"))
    account = Account(Budget(deadline_s=60))
    with pytest.raises(TimeoutError, match="upstream"):
        asyncio.run(drawn(account, engine))
    assert account.stop_reason is None
    assert account.usage.completion_tokens == 1


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    engine = ScriptedEngine(Chunk(0, "word", (), 1, finish_reason="eos"), Chunk(1, "half", (), 1))
    account = Account()
    with pytest.raises(RuntimeError, match="before 1 of 2 samples"):
        asyncio.run(drawn(account, engine, 2))
    assert account.usage.completion_tokens == 2


def test_an_error_of_the_engine_comes_through_with_its_cost() -> None:
    engine = ScriptedEngine(Chunk(0, "word", (), 4, prompt_tokens=7), error=ConnectionError("gone"))
    account = Account()
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(drawn(account, engine, 2))
    assert (account.usage.completion_tokens, account.usage.prompt_tokens, account.usage.samples) == (4, 7, 2)


@pytest.mark.parametrize("taken", [1, 2])
def test_closing_the_metered_engine_closes_the_inner_one(taken: int) -> None:
    engine = ScriptedEngine(Chunk(0, "a", (), 1), Chunk(0, "b", (), 1), hangs=True)
    account = Account()

    async def main() -> None:
        chunks = MeteredEngine(engine, account).generate(TASK.prompt, TASK.sampling)
        for _ in range(taken):
            await anext(chunks)
        await chunks.aclose()
        assert engine.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert account.usage.completion_tokens == taken
    assert account.stop_reason is None


def test_cancelling_the_consumer_closes_the_inner_engine() -> None:
    engine = ScriptedEngine(Chunk(0, "a", (), 1), hangs=True)
    account = Account(Budget(deadline_s=60))

    async def main() -> None:
        task = asyncio.create_task(drawn(account, engine))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.closed == 1

    asyncio.run(main())
    assert account.stop_reason is None


def test_calls_at_once_share_one_account() -> None:
    account, engine = Account(Budget(max_tokens=30)), FakeEngine(world(gap=3))

    async def main() -> None:
        await asyncio.gather(*(drawn(account, engine, 2) for _ in range(3)))

    asyncio.run(main())
    assert 30 <= account.usage.completion_tokens <= 30 + 3
    assert account.usage.completion_tokens == engine.generated
    assert account.usage.samples == 6
    assert account.usage.prompt_tokens * 6 == account.usage.engine_prompt_tokens


def test_scores_are_counted_and_paid_to_the_end_of_the_call() -> None:
    prm = FakePRM(tokens=6)
    account = Account(Budget(max_prm_tokens=15))
    metered = MeteredPRM(prm, account)
    assert (metered.name, metered.aggregation) == (prm.name, prm.aggregation)

    async def main() -> None:
        told: list[int] = []
        assert await metered.score("q", STEPS, on_tokens=told.append) == await prm.score("q", STEPS)
        assert told == [6, 6]
        assert account.spent(prm=True) is None
        await metered.score("q", STEPS)
        assert account.stop_reason is None
        with pytest.raises(BudgetSpent) as caught:
            await metered.score("q", STEPS)
        assert caught.value.reason == account.stop_reason == "max_prm_tokens"

    asyncio.run(main())
    assert (account.usage.prm_tokens, account.usage.prm_calls) == (24, 2)


def test_scores_and_tokens_are_paid_apart() -> None:
    account = Account(Budget(max_tokens=0, max_prm_tokens=100))
    asyncio.run(MeteredPRM(FakePRM(), account).score("q", STEPS))
    assert account.spent() == "max_tokens"
    assert account.spent(prm=True) is None


def test_a_hanging_reward_model_is_left_at_the_deadline() -> None:
    account = Account(Budget(deadline_s=0.05))

    async def main() -> None:
        async with asyncio.timeout(NEVER_S):
            await MeteredPRM(FakePRM(delay_s=3600), account).score("q", STEPS)

    with pytest.raises(BudgetSpent) as caught:
        asyncio.run(main())
    assert caught.value.reason == account.stop_reason == "deadline"
    assert (account.usage.prm_calls, account.usage.prm_tokens) == (1, 0)


class Slowing(FakePRM):
    """Scores one solution and hangs at the next."""

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        await super().score(question, solutions[:1], on_tokens=on_tokens)
        await asyncio.sleep(3600)
        return []


def test_what_was_scored_before_the_deadline_is_paid() -> None:
    account = Account(Budget(deadline_s=0.05))
    with pytest.raises(BudgetSpent):
        asyncio.run(MeteredPRM(Slowing(tokens=6), account).score("q", STEPS))
    assert (account.usage.prm_calls, account.usage.prm_tokens) == (1, 6)


class Wrong(FakePRM):
    """Loses a result, or fails after it."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(tokens=6)
        self._error = error

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        results = await super().score(question, solutions[1:], on_tokens=on_tokens)
        if self._error:
            raise self._error
        return results


def test_a_count_that_does_not_match_is_an_error_and_paid() -> None:
    account = Account()
    with pytest.raises(PRMError, match="for solutions of"):
        asyncio.run(MeteredPRM(Wrong(), account).score("q", STEPS))
    assert account.usage.prm_tokens == 6


@pytest.mark.parametrize("error", [PRMError("no"), TimeoutError("slow")])
def test_an_error_of_the_reward_model_comes_through_and_what_it_computed_is_paid(error: Exception) -> None:
    account = Account(Budget(deadline_s=60))
    with pytest.raises(type(error), match=str(error)):
        asyncio.run(MeteredPRM(Wrong(error), account).score("q", STEPS))
    assert account.stop_reason is None
    assert account.usage.prm_tokens == 6


class Short(FakePRM):
    """Reads solutions of two steps at most; says in several ways which are longer."""

    def __init__(self, tells: str = "faults") -> None:
        super().__init__(tokens=6)
        self.tells = tells
        self.asked: list[int] = []

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.asked.append(len(solutions))
        faults = {i: f"solution {i} is too long" for i, steps in enumerate(solutions) if len(steps) > 2}
        if not faults:
            return await super().score(question, solutions, on_tokens=on_tokens)
        if self.tells == "one":
            faults = dict(list(faults.items())[:1])
        scored = {}
        if self.tells == "scores":
            rest = [i for i in range(len(solutions)) if i not in faults]
            found = await super().score(question, [solutions[i] for i in rest], on_tokens=on_tokens)
            scored = dict(zip(rest, found, strict=True))
        raise PRMInputError("too long", faults={} if self.tells == "nothing" else faults, scored=scored)


LONG = [["a"], ["b", "c", "d"], ["e", "f"], ["g", "h", "i"], ["j"]]


@pytest.mark.parametrize(
    ("tells", "asked"), [("faults", [5, 3]), ("scores", [5]), ("one", [5, 4, 3]), ("nothing", [5, 1, 1, 1, 1, 1])]
)
def test_a_solution_that_cannot_be_scored_leaves_the_others_their_scores(tells: str, asked: list[int]) -> None:
    account, prm = Account(), Short(tells)
    results = asyncio.run(MeteredPRM(prm, account).score("q", LONG))
    assert [len(result.scores) for result in results] == [1, 0, 2, 0, 1]
    assert ["too long" in (result.fault or "") for result in results] == [False, True, False, True, False]
    assert [r for r in results if not r.fault] == asyncio.run(FakePRM().score("q", [s for s in LONG if len(s) < 3]))
    assert prm.asked == asked
    assert (account.usage.prm_calls, account.usage.prm_tokens) == (1, 18)


def test_where_no_solution_can_be_scored_each_says_why() -> None:
    results = asyncio.run(MeteredPRM(Short(), Account()).score("q", [LONG[1], LONG[3]]))
    assert [result.fault for result in results] == ["solution 0 is too long", "solution 1 is too long"]


def test_a_strict_reward_model_refuses_what_it_cannot_score_before_it_scores_anything() -> None:
    account = Account()
    with pytest.raises(PRMInputError, match="too long"):
        asyncio.run(MeteredPRM(Short(), account, strict=True).score("q", LONG))
    assert account.usage.prm_tokens == 0


def test_steps_that_go_on_from_a_beginning_are_no_samples() -> None:
    account = Account(Budget(max_samples=3))
    engine = MeteredEngine(FakeEngine(world()), account)

    async def drawn(ids: TokenIds, n: int) -> int:
        async with aclosing(engine.generate(Prompt(token_ids=ids), Sampling(seed=1), n)) as chunks:
            return len({chunk.index async for chunk in chunks})

    async def main() -> None:
        root = await engine.encode(TASK.prompt)
        assert [await drawn(root, 2), account.usage.samples] == [2, 2]
        assert [await drawn((*root, *root), 5), account.usage.samples] == [5, 2]
        assert [await drawn(root[1:], 4), account.usage.samples] == [1, 3]
        assert [await drawn(root + root[:1], 1), account.usage.samples] == [1, 3]
        with pytest.raises(BudgetSpent):
            await drawn(root, 1)

    asyncio.run(main())
    assert account.stop_reason == "max_samples"
