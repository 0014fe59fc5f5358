"""The record agrees with the account, whatever the strategy and however it ends."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, BreakingEngine, LosingEngine, begin, broken, world

import strategies
from prm import FakePRM
from strategies import Entry
from strategies.core.account import Account, Budget
from strategies.core.contracts import Chunk, Engine, Final, Prompt, Sample, Sampling
from strategies.core.metered import MeteredEngine, MeteredPRM
from strategies.core.parents import Steps, numbers_of
from strategies.core.search_events import watched
from strategies.record.recorder import Recorder, SampleRecord
from tts_server.engines.fake import FakeEngine


@pytest.fixture(params=strategies.registry())
def entry(request: pytest.FixtureRequest) -> Entry:
    return strategies.get(request.param)


def recorded(budget: Budget | None = None) -> tuple[Account, Recorder]:
    account = Account(budget or Budget())
    account.recorder = Recorder(TASK.prompt, account.deadline.started)
    return account, account.recorder


def search(entry: Entry, engine: Engine, account: Account, stop_after: int | None = None, **options: Any) -> None:
    """Runs a search, or leaves it after some events."""
    few = {name: value for name, value in {"n": 4, **options}.items() if name in entry.options.model_fields}
    prm = FakePRM() if entry.scored else None

    async def main() -> None:
        seen = 0
        async with aclosing(watched(begin(entry, engine, prm, account=account, **few), account)) as events:
            async for _ in events:
                seen += 1
                if seen == stop_after:
                    return

    asyncio.run(main())


def samples(recorder: Recorder) -> list[SampleRecord]:
    return [sample for call in recorder.calls for sample in call.samples]


def assert_agrees(account: Account, recorder: Recorder) -> None:
    """Every token that was paid for is some sample's or some scoring's."""
    usage, drawn = account.usage, samples(recorder)
    assert len(drawn) == recorder.samples >= usage.samples
    assert usage.samples >= sum(len(call.samples) for call in recorder.calls if not call.parents)
    assert sum(sample.completion_tokens for sample in drawn) == usage.completion_tokens
    assert sum(sample.prompt_tokens for sample in drawn) == usage.engine_prompt_tokens
    assert sum(sample.cached_tokens for sample in drawn) == usage.cached_prompt_tokens
    assert sum(scoring.tokens for scoring in recorder.scorings) == usage.prm_tokens
    assert len(recorder.scorings) == usage.prm_calls


def test_a_search_is_recorded_whole(entry: Entry) -> None:
    account, recorder = recorded()
    search(entry, FakeEngine(world()), account)
    assert_agrees(account, recorder)
    assert isinstance(recorder.final, Final)
    assert recorder.error is None
    for call in recorder.calls:
        assert all(parent < call.first for parent in call.parents), "only what was there is gone on from"
        assert call.ended_s is not None
        assert 0 <= call.started_s <= call.ended_s <= (recorder.ended_s or 0)
        assert 0 <= call.prompt < len(recorder.prompts)
    first = [call for call in recorder.calls if not call.parents]
    assert first == recorder.calls[: len(first)], "whatever is not among the first goes on from something"
    assert all(solution.sample is not None for scoring in recorder.scorings for solution in scoring.solutions)
    ends = [candidate.sample.number for candidate in recorder.final.candidates]
    assert None not in ends
    for candidate, end in zip(recorder.final.candidates, ends, strict=True):
        assert end is not None
        assert candidate.text.strip().endswith(samples(recorder)[end].text.strip())


def test_nothing_changes_by_being_recorded(entry: Entry) -> None:
    async def main(account: Account) -> list[Any]:
        options = {"n": 4} if "n" in entry.options.model_fields else {}
        prm = FakePRM() if entry.scored else None
        events = watched(begin(entry, FakeEngine(world()), prm, account=account, **options), account)
        async with aclosing(events):
            return [event async for event in events]

    plain, (account, recorder) = Account(), recorded()
    told = asyncio.run(main(plain))
    assert asyncio.run(main(account)) == told
    assert account.usage == plain.usage
    assert [event for _, event in recorder.events] == [e for e in told if not isinstance(e, Final | Chunk)][
        : len(recorder.events)
    ]


def test_a_search_that_is_left_is_recorded_as_far_as_it_came(entry: Entry) -> None:
    account, recorder = recorded()
    ended: list[int] = []
    recorder.on_end = lambda: ended.append(len(recorder.calls))
    search(entry, FakeEngine(world()), account, stop_after=1)
    assert_agrees(account, recorder)
    assert len(ended) == 1
    assert recorder.error is None


@pytest.mark.parametrize("kind", ["all are lost", "the call breaks", "some are lost"])
def test_what_fails_is_recorded(entry: Entry, kind: str) -> None:
    engines = {
        "all are lost": LosingEngine(),
        "the call breaks": BreakingEngine(world()),
        "some are lost": FakeEngine(broken(world(), 0, 2)),
    }
    account, recorder = recorded()
    failure = None
    try:
        search(entry, engines[kind], account)
    except ConnectionError as error:
        failure = error
    assert_agrees(account, recorder)
    assert recorder.error is failure
    assert (recorder.final is None) == (failure is not None)
    causes = [call.error for call in recorder.calls] + [sample.error for sample in samples(recorder)]
    # Of a call that breaks after its only sample's end, nobody hears.
    harmless = kind == "the call breaks" and len(recorder.calls[0].samples) == 1
    assert harmless or any(isinstance(cause, ConnectionError) for cause in causes)


def test_a_budget_that_is_spent_is_recorded(entry: Entry) -> None:
    account, recorder = recorded(Budget(max_tokens=10))
    search(entry, FakeEngine(world()), account)
    assert_agrees(account, recorder)
    assert account.stop_reason == "max_tokens"
    assert "budget" in {sample.finish_reason for sample in samples(recorder)}


def test_a_reward_model_that_fails_is_recorded() -> None:
    class Broken(FakePRM):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["on_tokens"](7)
            raise ConnectionError("the reward model is gone")

    account, recorder = recorded()

    async def main() -> None:
        await MeteredPRM(Broken(), account).score("?", [["a step"]])

    with pytest.raises(ConnectionError):
        asyncio.run(main())
    (scoring,) = recorder.scorings
    assert (scoring.tokens, scoring.results, str(scoring.error)) == (7, None, "the reward model is gone")
    assert scoring.solutions[0].steps == ("a step",)
    assert_agrees(account, recorder)


def test_the_nearest_of_the_parents_that_a_prompt_names_are_kept() -> None:
    _, recorder = recorded()

    def call(numbers: range, *parents: int) -> tuple[int, ...]:
        with recorder.call(Prompt(parents=parents), Sampling(), numbers):
            return recorder.calls[-1].parents

    assert call(range(2)) == ()
    assert call(range(2, 3), 0) == (0,)
    assert call(range(3, 4), 0, 2) == (2,), "a review is shown with what it reviews"
    assert call(range(4, 5), 1, 3, 0) == (1, 3)
    assert call(range(5, 6), 4, 3, 1, 4) == (4,)
    assert recorder.samples == 6


def test_of_equal_samples_each_is_the_parent_of_what_continues_it() -> None:
    account, recorder = recorded()
    engine = MeteredEngine(FakeEngine(lambda request: "same"), account)

    async def drawn(prompt: Prompt, n: int) -> list[Sample]:
        samples = [Sample() for _ in range(n)]
        async for chunk in engine.generate(prompt, Sampling(), n):
            samples[chunk.index].chunks.append(chunk)
        return samples

    async def main() -> None:
        twins = await drawn(TASK.prompt, 2)
        for twin in reversed(twins):
            await drawn(replace(TASK.prompt, parents=numbers_of([twin])), 1)
        await MeteredPRM(FakePRM(), account).score("?", [Steps(["same"], numbers_of(twins)[1])])

    asyncio.run(main())
    assert [call.parents for call in recorder.calls] == [(), (1,), (0,)]
    assert [solution.sample for solution in recorder.scorings[0].solutions] == [1]


def test_a_chunk_that_comes_after_an_end_does_no_harm() -> None:
    _, recorder = recorded()
    with recorder.call(TASK.prompt, Sampling(), range(1)) as note:
        note(Chunk(0, "a", (5,), 1, finish_reason="eos"))
        note(Chunk(0, "b", (6,), 1))
        note(Chunk(3, "c", (7,), 1))
    assert [sample.text for sample in samples(recorder)] == ["a"]


def test_a_strategy_that_ends_without_a_final_has_failed() -> None:
    account, recorder = recorded()

    async def nothing() -> Any:
        return
        yield

    async def main() -> None:
        async for _ in watched(nothing(), account):
            pass

    asyncio.run(main())
    assert isinstance(recorder.error, RuntimeError)
