"""Fresh solutions and revisions: what the model is asked, what the tree is told, what is returned."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from prm import FakePRM, PRMError, StepScores
from strategies.core.account import Budget
from strategies.core.contracts import Chunk, Incumbent, Progress, Prompt, Refused, Sampling, text_of
from tts_server.engines.fake import FakeEngine, FakeRequest

pytest.importorskip("treequest")

AB_MCTS = strategies.get("ab_mcts")
FRESH = "First, a guess.\n\nThen {it is} \\boxed{1}."
REVISED = "Now with care.\n\nSo it is \\boxed{2}."


class Recorder(FakeEngine):
    """Remembers what each call was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[tuple[Prompt, Sampling, int]] = []

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.calls.append((prompt, sampling, n))
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                yield chunk


def solve(request: FakeRequest) -> str:
    return FRESH if len(request.messages) == 1 else REVISED


def careful(question: str, steps: Sequence[str]) -> list[float]:
    assert question == "Is it 1 or 0?"
    return [0.8, 0.95] if steps[0].startswith("Now") else [0.3, 0.125]


def run(engine: FakeEngine, prm: FakePRM | None = None, **options: Any) -> Search:
    return asyncio.run(search(AB_MCTS, engine, prm or FakePRM(careful), **options))


def test_the_first_batch_is_one_call_of_fresh_samples() -> None:
    engine = Recorder(solve)
    done = run(engine, n=3, batch=3)
    ((prompt, sampling, n),) = engine.calls
    assert (prompt.messages, n) == (TASK.prompt.messages, 3)
    assert sampling.temperature == 0.8
    assert [c.text for c in done.final.candidates] == [FRESH] * 3
    assert done.account.usage.prm_calls == 1


def test_a_revision_sees_the_solution_its_score_and_its_weakest_step() -> None:
    engine = Recorder(solve)
    done = run(engine, n=12, batch=1)
    revisions = [prompt for prompt, _, _ in engine.calls if len(prompt.messages) > 1]
    assert revisions
    for prompt in revisions:
        asked, solution, verdict = prompt.messages
        assert asked == TASK.prompt.messages[0]
        assert (solution["role"], verdict["role"]) == ("assistant", "user")
        score, weakest = {FRESH: ("0.12", "Then {it is} \\boxed{1}."), REVISED: ("0.95", "Now with care.")}[
            text_of(solution)
        ]
        assert f"gives this solution {score} on" in text_of(verdict)
        assert text_of(verdict).partition("\n\n")[2].startswith(weakest)
    assert done.final.best.text == REVISED
    assert done.final.confidence == 0.95


def test_where_revisions_are_better_it_goes_deeper() -> None:
    def revisions(fresh: float, revised: float) -> int:
        engine = Recorder(solve)
        prm = FakePRM(lambda q, steps: [revised if steps[0].startswith("Now") else fresh] * len(steps))
        run(engine, prm, n=40, batch=1)
        return sum(len(prompt.messages) > 1 for prompt, _, _ in engine.calls)

    assert revisions(0.1, 0.9) > 25
    assert revisions(0.9, 0.1) < 15


def test_thoughts_are_not_shown_to_who_revises() -> None:
    engine = Recorder(lambda request: "<think>Hm.</think>\n\n" + FRESH)
    run(engine, FakePRM(lambda q, steps: [0.5] * len(steps)), n=8, batch=1)
    assert {text_of(prompt.messages[1]) for prompt, _, _ in engine.calls if len(prompt.messages) > 1} == {FRESH}


def test_each_call_has_a_seed_of_its_own() -> None:
    engine = Recorder(solve)
    run(engine, n=8, batch=1)
    seeds = [sampling.seed for _, sampling, _ in engine.calls]
    assert len(set(seeds)) == 8
    again = Recorder(solve)
    run(again, n=8, batch=1)
    assert again.calls == engine.calls
    unseeded = Recorder(solve)
    run(unseeded, n=4, task=replace(TASK, sampling=Sampling()))
    assert {sampling.seed for _, sampling, _ in unseeded.calls} == {None}


@pytest.mark.parametrize(("n", "batch", "rounds"), [(8, 4, 2), (5, 4, 2), (3, 1, 3), (2, 8, 1)])
def test_it_generates_n_in_batches(n: int, batch: int, rounds: int) -> None:
    done = run(FakeEngine(solve), n=n, batch=batch)
    assert len(done.final.candidates) == done.account.usage.samples == n
    assert done.account.usage.prm_calls == rounds
    assert sum(isinstance(event, Incumbent) for event in done.events) == rounds
    told = [event.text for event in done.events if isinstance(event, Progress)]
    assert len(told) == n
    assert told[0] == "a fresh solution answers 1 and scores 0.125"


def test_the_incumbent_is_the_best_so_far() -> None:
    scores = iter([0.5, 0.7, 0.2, 0.9])
    prm = FakePRM(lambda q, steps: [next(scores)] * len(steps))
    done = run(FakeEngine(solve), prm, n=4, batch=1)
    assert [e.candidate.score for e in done.events if isinstance(e, Incumbent)] == [0.5, 0.7, 0.7, 0.9]
    assert done.final.best.score == 0.9


def test_the_vote_can_choose() -> None:
    scores = {"1": 0.4, "2": 0.5}
    engine = FakeEngine(lambda request: rf"It is \boxed{{{1 if request.index < 2 else 2}}}.")
    prm = FakePRM(lambda q, steps: [scores[steps[0][-3]]])
    assert run(engine, prm, n=3, batch=3).final.best.answer == "2"
    assert run(engine, prm, n=3, batch=3, selector="weighted").final.best.answer == "1"


def test_a_failing_call_costs_only_its_own_solutions() -> None:
    def fails(request: FakeRequest) -> str:
        if len(request.messages) > 1:
            raise ConnectionError("lost")
        return FRESH

    done = run(FakeEngine(fails), n=12, batch=2)
    assert 2 <= len([c for c in done.final.candidates if c.score is not None]) < 12
    assert done.final.best.text == FRESH


def test_a_reward_model_that_fails_later_leaves_what_was_scored() -> None:
    class Tired(FakePRM):
        calls = 0

        async def score(self, *args: Any, **kwargs: Any) -> list[StepScores]:
            self.calls += 1
            if self.calls == 2:
                raise PRMError("out of memory")
            return await super().score(*args, **kwargs)

    done = run(FakeEngine(solve), Tired(careful), n=6, batch=2)
    assert [c.score is None for c in done.final.candidates] == [False, False, True, True, False, False]
    assert any(isinstance(e, Progress) and "reward model failed" in e.text for e in done.events)


def test_a_solution_without_text_is_not_told_to_the_tree() -> None:
    engine = Recorder(lambda request: "" if request.index == 0 else FRESH)
    done = run(engine, n=2, batch=2)
    assert [c.score for c in done.final.candidates] == [None, 0.125]
    assert done.final.best.text == FRESH


def test_a_message_to_be_continued_is_refused() -> None:
    engine = FakeEngine(solve)
    task = replace(TASK, prompt=replace(TASK.prompt, template={"continue_final_message": True}))
    with pytest.raises(Refused) as caught:
        run(engine, task=task, n=2)
    assert caught.value.param == "continue_final_message"
    assert engine.generated == 0


def test_single_samples_differ_too() -> None:
    engine = Recorder(solve)
    run(engine, n=3, batch=1)
    assert {sampling.temperature for _, sampling, _ in engine.calls} == {0.8}


def test_a_spent_budget_ends_it() -> None:
    done = run(FakeEngine(solve), n=40, batch=1, budget=Budget(max_samples=3))
    assert len(done.final.candidates) == 3
    assert sum(isinstance(event, Incumbent) for event in done.events) <= 4
