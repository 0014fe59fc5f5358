import asyncio
from dataclasses import replace

from searching import TASK, BreakingEngine, Search, broken, search, world

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Delta, Sampling, Task
from tts_server.engines.fake import FakeEngine, FakeRequest


def run(engine: FakeEngine, task: Task = TASK, budget: Budget | None = None) -> Search:
    return asyncio.run(search(strategies.get("single"), engine, task=task, budget=budget))


def test_every_chunk_is_streamed_as_it_comes() -> None:
    done = run(FakeEngine(world()))
    *deltas, _ = done.events
    assert all(isinstance(event, Delta) for event in deltas)
    assert [event.chunk for event in deltas if isinstance(event, Delta)] == done.final.best.sample.chunks
    assert done.final.selector is None
    assert done.final.confidence is None


def test_sampling_reaches_the_engine_as_it_was_asked() -> None:
    seen: list[Sampling] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.sampling)
        return "x"

    sampling = Sampling(temperature=None, top_p=0.5, seed=3, stop=("y",), max_tokens=9)
    run(FakeEngine(script), replace(TASK, sampling=sampling, choices=2))
    assert seen == [sampling, sampling]


def test_choices_are_samples_of_one_call_and_not_ranked() -> None:
    done = run(FakeEngine(world(gap=1)), replace(TASK, choices=3))
    assert done.final.ranking == (0, 1, 2)
    assert done.account.usage.samples == 3
    assert done.account.usage.engine_prompt_tokens == 3 * done.account.usage.prompt_tokens
    for i, candidate in enumerate(done.final.candidates):
        streamed = [e.chunk for e in done.events if isinstance(e, Delta) and e.chunk.index == i]
        assert streamed == candidate.sample.chunks


def test_an_answer_is_told_apart_from_the_text() -> None:
    assert run(FakeEngine(lambda request: r"So \boxed{\frac{1}{2}}.")).final.best.answer == r"\frac{1}{2}"


def test_a_failed_choice_stays_out_of_the_ranking() -> None:
    done = run(FakeEngine(broken(world(), 0)), replace(TASK, choices=3))
    assert done.final.ranking == (1, 2)
    assert [c.sample.finish_reason for c in done.final.candidates] == ["error", "eos", "eos"]


def test_an_engine_that_breaks_keeps_the_choices_that_have_ended() -> None:
    done = run(BreakingEngine(world(gap=3)), replace(TASK, choices=3))
    assert done.final.ranking == (0,)
    assert [c.sample.finish_reason for c in done.final.candidates] == ["eos", "error", "error"]


def test_a_spent_budget_returns_the_unfinished_text() -> None:
    done = run(FakeEngine(world()), budget=Budget(max_tokens=4))
    assert done.final.best.text.startswith("Thought 1")
    assert done.final.best.sample.finish_reason == "budget"
    assert done.account.stop_reason == "max_tokens"


def test_without_any_budget_the_answer_is_empty() -> None:
    done = run(FakeEngine(world()), budget=Budget(max_samples=0))
    assert len(done.events) == 1
    assert done.final.best.text == ""
    assert done.final.ranking == (0,)
    assert done.account.stop_reason == "max_samples"
