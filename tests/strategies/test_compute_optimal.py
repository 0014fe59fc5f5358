"""How much is spent on which question, and that the answer says why."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import TASK, CrowdedEngine, Search, begin, world

import strategies
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import ToyEngine, World
from prm import FakePRM, OnTokens
from prm.judge import Chat, Judge
from strategies.allocation.difficulty import Difficulty, Isotonic
from strategies.allocation.policy_table import Cell, InUse, Pilot, Policy, Seconds, Tokens
from strategies.core.account import Account, Budget
from strategies.core.contracts import Delta, Engine, Final, Incumbent, Progress, Prompt, Refused, Sampling, Task
from strategies.core.prompts import BOXED
from strategies.core.search_events import watched
from strategies.record.recorder import Recorder
from tts_server.engines.fake import FakeEngine, FakeRequest, Script

ENTRY = strategies.get("compute_optimal")


def saying(*answers: object, words: int = 0) -> Script:
    """A policy whose samples give these answers one after the other, and the last one again and again."""
    drawn = count()

    def script(request: FakeRequest) -> str:
        number = next(drawn)
        answer = answers[min(number, len(answers) - 1)]
        thought = "Thought." + " more" * words
        return f"{'I ' * number}cannot say." if answer is None else rf"{thought} The answer is \boxed{{{answer}}}."

    return script


class Watched(FakeEngine):
    """Remembers its calls."""

    def __init__(self, script: Script, **options: Any) -> None:
        super().__init__(script, **options)
        self.calls: list[tuple[Prompt, Sampling, int]] = []

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> Any:
        self.calls.append((prompt, sampling, n))
        return super().generate(prompt, sampling, n)


def run(
    engine: Engine,
    prm: Any = None,
    *,
    policy: Policy | None = None,
    forced: bool = False,
    budget: Budget | None = None,
    task: Task = TASK,
    **options: Any,
) -> Search:
    account = Account(budget or Budget(), policy=InUse(policy, forced) if policy else None)

    async def main() -> Search:
        async with aclosing(begin(ENTRY, engine, prm, task=task, account=account, **options)) as events:
            return Search(tuple([event async for event in events]), account)

    return asyncio.run(main())


def decision(done: Search) -> dict[str, Any]:
    assert done.final.decision is not None
    told: dict[str, Any] = json.loads(json.dumps(done.final.decision))
    assert told == done.final.decision
    return told


def cell(place: int, strategy: str, low: float, tokens: float = 100, wall_s: float = 1.0, **options: Any) -> Cell:
    cost, none = Tokens(tokens, tokens, tokens), Tokens(0, 0, 0)
    return Cell(place, strategy, options, low, low, low, 50, cost, none, Seconds(wall_s, wall_s))


def fitted(*cells: Cell, **changed: Any) -> Policy:
    fields: dict[str, Any] = {
        "model": "fake",
        "prm": None,
        "prompt": "",
        "created": "2026-11-21",
        "source": "a test",
        "pilot": Pilot(4),
        "difficulty": None,
        "edges": (0.1, 0.5),
        "agreed": None,
        "cells": tuple(replace(c, bin=place) for place in range(3) for c in cells),
    }
    return Policy(**{**fields, **changed})


STOP = cell(0, "stop", 0.2, 40)
SPLIT = (7, 7, 8, 9)


# The pilot.


def test_a_pilot_that_agrees_is_the_answer() -> None:
    engine = Watched(saying(7))
    done = run(engine, FakePRM())
    assert [n for _, _, n in engine.calls] == [4]
    assert (done.final.best.answer, len(done.final.candidates), done.account.usage.prm_calls) == ("7", 4, 0)
    told = decision(done)
    assert (told["stop_reason"], told["chosen"], told["bin"], told["difficulty"]) == ("unanimous", "stop", 2, 1.0)
    assert told["pilot"]["n"] == 4
    assert told["pilot"]["tokens"] == told["predicted_tokens"] == engine.generated
    assert told["pilot"]["features"]["share"] == 1
    assert (told["policy"], told["policy_note"], told["predicted_accuracy"]) == ("prior", None, None)
    assert told["interval"][0] <= told["difficulty"] <= told["interval"][1]


def test_the_reward_model_s_word_counts_where_it_is_asked_for() -> None:
    low, high = FakePRM(lambda q, s: [0.3] * len(s)), FakePRM(lambda q, s: [0.9] * len(s))
    assert decision(run(Watched(saying(7)), high, accept_score=0.5))["stop_reason"] == "unanimous"
    doubted = run(Watched(saying(7)), low, accept_score=0.5)
    assert doubted.account.usage.samples > 4
    assert decision(doubted)["pilot"]["features"]["score_mean"] == pytest.approx(0.3)
    with pytest.raises(Refused, match="accept_score needs a reward model") as caught:
        run(Watched(saying(7)), accept_score=0.5)
    assert caught.value.param == "tts.accept_score"


def test_a_small_budget_is_not_spread_over_four_samples() -> None:
    for most, n in ((200, 1), (600, 2), (1024, 4), (None, 4)):
        engine = Watched(saying(7))
        run(engine, budget=Budget(max_tokens=most))
        assert engine.calls[0][2] == n
    engine = Watched(saying(7))
    run(engine, budget=Budget(max_tokens=400), policy=fitted(cell(0, "stop", 0.2, 800)))
    assert engine.calls[0][2] == 2


def test_late_answers_tell_how_many_samples_a_budget_is_good_for() -> None:
    account = Account(Budget(max_tokens=4096))
    account.latency.engine.answer.add(1500.0)
    engine = Watched(saying(7))

    async def main() -> None:
        async with aclosing(begin(ENTRY, engine, account=account)) as events:
            assert [event async for event in events]

    asyncio.run(main())
    assert engine.calls[0][2] == 2


def test_as_many_samples_as_choices_are_drawn() -> None:
    engine = Watched(saying(7))
    done = run(engine, task=replace(TASK, choices=6))
    assert engine.calls[0][2] == 6
    assert len(done.final.ranking) == 6


def test_answers_that_cannot_be_compared_are_not_voted_on() -> None:
    done = run(Watched(saying(None)))
    assert (done.account.usage.samples, decision(done)["stop_reason"]) == (4, "no_votes")
    scores = iter((0.2, 0.9, 0.4, 0.1))
    scored = run(Watched(saying(None)), FakePRM(lambda q, s: [next(scores)]))
    assert (scored.account.usage.samples, scored.final.best.score) == (4, 0.9)


def test_without_tokens_for_it_the_reward_model_is_not_asked() -> None:
    done = run(Watched(saying(*SPLIT)), FakePRM(0.9), budget=Budget(max_prm_tokens=0))
    assert done.account.usage.prm_calls == 0
    assert (done.account.stop_reason, decision(done)["chosen"]) == (None, "self_consistency")


# What is spent after it.


def test_a_vote_is_drawn_in_waves_until_it_is_settled() -> None:
    engine = Watched(saying(7, 8, 7, 7, 7, 7, 7, 7, 8))
    done = run(engine)
    assert [n for _, _, n in engine.calls] == [4, 4]
    assert len({sampling.seed for _, sampling, _ in engine.calls}) == 2
    told = decision(done)
    assert (told["stop_reason"], told["chosen"], told["agreement"]) == ("settled", "self_consistency", 7 / 8)
    assert len(done.final.candidates) == 8
    assert sum(isinstance(event, Incumbent) for event in done.events) == 2


def test_further_votes_must_promise_enough() -> None:
    script = [7, 8, 7, 8, 7, 8, 7, 8, 7]
    patient, keen, thrifty = (run(Watched(saying(*script, *script, words=200)), min_gain=g) for g in (0.0, 0.4, 0.5))
    assert decision(keen)["stop_reason"] == decision(thrifty)["stop_reason"] == "no_gain"
    assert thrifty.account.usage.samples == 4 < keen.account.usage.samples < patient.account.usage.samples
    assert (decision(thrifty)["chosen"], decision(keen)["chosen"]) == ("stop", "self_consistency")


def test_a_search_must_promise_enough_too() -> None:
    search = cell(0, "self_refine", 0.6, 1040)
    some, none = (run(Watched(saying(*SPLIT)), policy=fitted(STOP, search), min_gain=gain) for gain in (0.3, 0.5))
    assert (decision(some)["chosen"], decision(none)["chosen"]) == ("self_refine", "stop")
    assert (decision(none)["stop_reason"], none.account.usage.samples) == ("no_gain", 4)


HARD = World(seed=3, depth=4, p_step=0.35, wrong=(0.05,) * 20)


@pytest.mark.parametrize(("quality", "unsolved"), [(0.8, False), (0.0, True)])
def test_a_hard_question_gets_one_search_that_begins_with_the_pilot(quality: float, unsolved: bool) -> None:
    done = run(ToyEngine(HARD), ToyPRM(quality), task=HARD.task(1))
    told = decision(done)
    assert (told["chosen"], told["bin"], told["stop_reason"]) == ("beam_search", 0, "done")
    assert told["unsolved"] == unsolved
    # The pilot's samples stand beside the search's ends.
    assert len(done.final.candidates) == 16 + 4


def test_a_trace_shows_what_of_the_search_goes_on_from_the_pilot() -> None:
    task = HARD.task(1)
    account = Account(recorder=Recorder(task.prompt, 0.0))
    recorder = account.recorder
    assert recorder is not None

    async def main() -> None:
        run = begin(ENTRY, ToyEngine(HARD), ToyPRM(0.8), task=task, account=account)
        async with aclosing(watched(run, account)) as events:
            assert [event async for event in events]

    asyncio.run(main())
    pilot, first, *later = recorder.calls
    assert (len(pilot.samples), len(first.samples), first.parents) == (4, 12, ())
    assert all(call.parents for call in later)
    assert {parent for call in later for parent in call.parents} & set(range(4))
    assert recorder.final is not None
    assert None not in [candidate.sample.number for candidate in recorder.final.candidates]


def test_the_pilot_s_votes_count_beside_a_search_s() -> None:
    hard = World(seed=3, depth=4, p_step=0.5)
    search = cell(0, "beam_search", 0.9, n=4, beam_width=2)
    done = run(ToyEngine(hard), ToyPRM(1.0), policy=fitted(search, model="toy", prm="toy"), task=hard.task(1))
    assert decision(done)["chosen"] == "beam_search"
    assert len(done.final.candidates) == 8
    assert sum(vote.count for vote in done.final.votes) == 8


def test_without_a_reward_model_or_token_ids_a_hard_question_gets_votes() -> None:
    engine = Watched(saying(*range(40)), continues=False)
    told = decision(run(engine))
    assert (told["chosen"], told["bin"], told["unsolved"]) == ("self_consistency", 0, True)
    assert decision(run(Watched(saying(*range(40)), continues=False), FakePRM()))["chosen"] == "best_of_n"


def test_an_untrained_judge_without_a_policy_leads_no_search_and_is_not_asked() -> None:
    async def verify(chats: Sequence[Chat], *, on_tokens: OnTokens | None = None) -> list[float]:
        raise AssertionError("the judge was asked")

    judge = Judge(verify)
    assert decision(run(Watched(saying(*range(40))), judge))["chosen"] == "self_consistency"
    assert decision(run(Watched(saying(*SPLIT)), judge))["chosen"] == "self_consistency"


def test_a_fitted_vote_without_a_selector_chooses_as_the_reward_model_does() -> None:
    # By the best score votes do not tell when enough were drawn.
    vote = cell(0, "best_of_n", 0.9, 200, n=32)
    for selector, samples in (("weighted", 8), ("best", 32)):
        prm = FakePRM(lambda q, s: [0.9 if "{9}" in s[-1] else 0.4], selector=selector)
        done = run(Watched(saying(7, 7, 9, 7)), prm, policy=fitted(STOP, vote, prm="fake"))
        assert done.account.usage.samples == samples


def test_an_arm_runs_on_what_was_drawn_already() -> None:
    refine = cell(0, "self_refine", 0.9, n=2, revisions=1)
    engine = Watched(saying(*SPLIT, "NOTHING TO CHANGE"))
    done = run(engine, policy=fitted(STOP, refine))
    asked = [prompt.messages[-1]["content"] for prompt, _, _ in engine.calls[1:]]
    assert len(asked) == len([text for text in asked if text != TASK.question])
    assert len(done.final.candidates) >= 4
    assert decision(done)["chosen"] == "self_refine"


def test_nothing_is_told_before_it_is_certain() -> None:
    done = run(Watched(saying(*SPLIT)), policy=fitted(cell(0, "single", 0.9)))
    assert not any(isinstance(event, Delta) for event in done.events)
    assert len(done.final.candidates) == 4


# The table.

CHEAP, DEAR = cell(0, "self_consistency", 0.5, 100, 2.0, n=5), cell(0, "self_consistency", 0.7, 900, 50.0, n=6)


@pytest.mark.parametrize(
    ("budget", "options", "n"),
    [
        (Budget(), {}, 6),
        (Budget(max_tokens=800), {}, 5),
        (Budget(max_samples=5), {}, 5),
        (Budget(deadline_s=30), {}, 5),
        (Budget(deadline_s=80), {}, 6),
        (Budget(), {"target_accuracy": 0.4}, 5),
        (Budget(), {"target_accuracy": 0.6}, 6),
        (Budget(), {"target_accuracy": 0.9}, 6),
    ],
    ids=str,
)
def test_the_surest_arm_that_fits_is_taken(budget: Budget, options: dict[str, Any], n: int) -> None:
    done = run(Watched(saying(*SPLIT)), policy=fitted(CHEAP, DEAR), budget=budget, **options)
    told = decision(done)
    assert (told["policy"], told["chosen"], told["options"]) == ("fitted", "self_consistency", {"n": n})
    assert told["predicted_accuracy"] == (0.7 if n == 6 else 0.5)
    assert done.account.usage.samples == n


def test_of_a_pilot_that_agrees_the_table_predicts_what_such_pilots_reach() -> None:
    for agreed in (0.97, None):
        told = decision(run(Watched(saying(7)), policy=fitted(STOP, CHEAP, agreed=agreed)))
        assert (told["stop_reason"], told["chosen"]) == ("unanimous", "stop")
        # Not that of `stop`, which is of pilots that do not agree.
        assert told["predicted_accuracy"] == agreed
    assert decision(run(Watched(saying(*SPLIT)), policy=fitted(STOP, agreed=0.97)))["predicted_accuracy"] == 0.2


def test_on_a_slow_day_a_deadline_rules_out_more() -> None:
    policy = fitted(replace(STOP, wall_s=Seconds(0.001, 0.001)), replace(DEAR, wall_s=Seconds(1.0, 1.0)))
    slow = run(Watched(saying(*SPLIT), token_s=0.01), policy=policy, budget=Budget(deadline_s=5))
    assert decision(slow)["stop_reason"] == "no_better_arm"
    assert decision(run(Watched(saying(*SPLIT)), policy=policy))["chosen"] == "self_consistency"


def test_a_vote_of_the_pilot_s_size_tells_what_a_pilot_takes_as_well() -> None:
    """Where it is better than the plain vote, a table has it in that one's place."""
    weighted = cell(0, "best_of_n", 0.3, 40, 0.001, n=4, selector="majority")
    slow = Watched(saying(*SPLIT), token_s=0.01)
    done = run(slow, policy=fitted(weighted, replace(DEAR, wall_s=Seconds(1.0, 1.0))), budget=Budget(deadline_s=5))
    assert (decision(done)["chosen"], done.account.usage.samples) == ("best_of_n", 4)


def test_reward_model_tokens_are_held_to_their_budget() -> None:
    scoring = replace(cell(0, "best_of_n", 0.9, n=6), prm_tokens=Tokens(500, 500, 500))
    for most, chosen in ((400, "self_consistency"), (600, "best_of_n")):
        policy = fitted(STOP, CHEAP, scoring, prm="fake")
        done = run(Watched(saying(*SPLIT)), FakePRM(tokens=5), policy=policy, budget=Budget(max_prm_tokens=most))
        assert decision(done)["chosen"] == chosen


def test_the_choice_is_made_again_after_each_wave() -> None:
    # Three of four agree at first, and then nothing does.
    large = cell(2, "self_consistency", 0.9, n=16)
    policy = fitted(cells=(STOP, cell(1, "stop", 0.3), cell(2, "stop", 0.8), large))
    done = run(Watched(saying(7, 7, 7, 8, *range(10, 30))), policy=policy)
    told = decision(done)
    assert (told["pilot"]["difficulty"], told["difficulty"], told["bin"]) == (0.5625, 0.3125, 1)
    assert (told["chosen"], told["stop_reason"], told["predicted_accuracy"]) == ("stop", "no_better_arm", 0.3)
    assert done.account.usage.samples == 8


def test_a_model_of_difficulty_decides_where_there_is_one() -> None:
    flat = Difficulty(("confidence",), (0.0,), (1.0,), (1.0,), 0.0, Isotonic((0.0, 1.0), (0.3, 0.3)), 0.02, 50)
    engine = Watched(saying(7))
    done = run(engine, policy=fitted(STOP, difficulty=flat))
    told = decision(done)
    assert (told["difficulty"], told["estimated_from"], told["bin"]) == (0.3, "model", 1)
    assert engine.calls[0][1].logprobs == 0
    assert told["pilot"]["features"]["confidence"] < 0
    assert all(candidate.sample.logprobs == () for candidate in done.final.candidates)


@pytest.mark.parametrize(("feature", "calls"), [("length", 0), ("score_mean", 1)])
def test_a_pilot_is_scored_only_where_its_difficulty_is_told_by_scores(feature: str, calls: int) -> None:
    flat = Difficulty((feature,), (0.0,), (1.0,), (1.0,), 0.0, Isotonic((0.0, 1.0), (0.3, 0.3)), 0.02, 50)
    done = run(Watched(saying(*SPLIT)), FakePRM(), policy=fitted(STOP, prm="fake", difficulty=flat))
    assert decision(done)["estimated_from"] == "model"
    assert done.account.usage.prm_calls == calls


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"model": "other"}, "fitted for the model 'other', not 'fake'"),
        ({"prm": "teacher"}, "with the reward model 'teacher', not 'none'"),
        ({"prompt": "boxed"}, "with the system prompt 'boxed'"),
    ],
    ids=str,
)
def test_a_policy_of_something_else_is_not_used_unless_forced(changed: dict[str, Any], note: str) -> None:
    policy = fitted(STOP, **changed)
    told = decision(run(Watched(saying(*SPLIT)), policy=policy))
    assert told["policy"] == "prior"
    assert note in told["policy_note"]
    forced = decision(run(Watched(saying(*SPLIT)), policy=policy, forced=True))
    assert (forced["policy"], forced["policy_note"]) == ("fitted", None)


def test_the_prompt_that_it_was_fitted_with_may_be_an_option_or_a_message() -> None:
    policy = fitted(STOP, prompt="boxed")
    asked = decision(run(Watched(saying(*SPLIT)), policy=policy, system_prompt="boxed"))
    turns = ({"role": "system", "content": BOXED}, *TASK.prompt.messages)
    said = decision(run(Watched(saying(*SPLIT)), policy=policy, task=replace(TASK, prompt=Prompt(turns))))
    assert asked["policy"] == said["policy"] == "fitted"


def test_a_policy_without_a_reward_model_uses_none() -> None:
    done = run(Watched(saying(*SPLIT)), FakePRM(), policy=fitted(STOP, CHEAP))
    assert (decision(done)["policy"], done.account.usage.prm_calls) == ("fitted", 0)


def test_some_questions_explore() -> None:
    policy = fitted(STOP, CHEAP, DEAR)

    def explored(seed: int, share: float) -> bool:
        task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
        told = decision(run(Watched(saying(*SPLIT)), policy=policy, task=task, exploration=share))
        assert (told["options"] == {"n": 6}) == (not told["explored"])
        return bool(told["explored"])

    assert [explored(seed, 0.0) for seed in range(3)] == [False] * 3
    assert [explored(seed, 1.0) for seed in range(3)] == [True] * 3
    drawn = [explored(seed, 0.5) for seed in range(6)]
    assert len(set(drawn)) == 2
    assert drawn == [explored(seed, 0.5) for seed in range(6)]


# What goes wrong.


def test_an_arm_that_refuses_the_request_is_left_out() -> None:
    policy = fitted(STOP, CHEAP, cell(0, "budget_forcing", 0.9))
    task = replace(TASK, sampling=replace(TASK.sampling, logprobs=0))
    done = run(Watched(saying(*SPLIT)), policy=policy, task=task)
    assert any(isinstance(e, Progress) and "budget_forcing is left out" in e.text for e in done.events)
    assert decision(done)["chosen"] == "self_consistency"
    assert done.final.best.sample.logprobs


def broken_after(calls: int, script: Script) -> Callable[[FakeRequest], Any]:
    seen = count()

    def failing(request: FakeRequest) -> Any:
        if next(seen) >= calls:
            raise ConnectionError("the engine is gone")
        return script(request)

    return failing


@pytest.mark.parametrize("arm", [DEAR, cell(0, "tree_of_thoughts", 0.9)], ids=lambda arm: str(arm.strategy))
def test_what_fails_after_the_pilot_leaves_its_answer(arm: Cell) -> None:
    done = run(Watched(broken_after(4, saying(*SPLIT))), policy=fitted(STOP, arm))
    assert done.final.best.answer == "7"
    failed = [c for c in done.final.candidates if c.sample.finish_reason == "error"]
    assert len(failed) >= 1
    assert isinstance(failed[0].sample.chunks[-1].error, ConnectionError)
    assert decision(done)["stop_reason"] in ("failed", "budget", "done")


ARMS: Sequence[tuple[str, dict[str, Any]]] = [
    ("stop", {}),
    ("self_consistency", {"n": 12}),
    ("best_of_n", {"n": 8, "selector": "weighted"}),
    ("beam_search", {"n": 4, "beam_width": 2}),
    ("self_refine", {"n": 2, "revisions": 2}),
    ("mcts", {"n": 3}),
]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    arm=st.sampled_from(ARMS),
    samples=st.none() | st.integers(0, 20),
    tokens=st.none() | st.integers(0, 400),
    prm_tokens=st.none() | st.integers(0, 60),
    chunk_tokens=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_no_budget_is_exceeded(
    arm: tuple[str, dict[str, Any]],
    samples: int | None,
    tokens: int | None,
    prm_tokens: int | None,
    chunk_tokens: int,
    seed: int,
) -> None:
    engine = CrowdedEngine(world(gap=1), chunk_tokens=chunk_tokens)
    budget = Budget(max_samples=samples, max_tokens=tokens, max_prm_tokens=prm_tokens)
    # The table says that all is for free, so that the account alone stands between the arm and the budget.
    policy = fitted(cell(0, arm[0], 0.9, 0, **arm[1]), prm="fake")
    task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
    done = run(engine, FakePRM(tokens=5), policy=policy, budget=budget, task=task)
    usage = done.account.usage
    assert usage.completion_tokens == engine.generated
    assert engine.live == 0
    assert isinstance(done.final, Final)
    assert samples is None or usage.samples <= samples
    assert tokens is None or usage.completion_tokens <= tokens + engine.peak * (chunk_tokens + 1)
    assert prm_tokens is None or usage.prm_tokens < prm_tokens + 5 * 16
    assert decision(done)["pilot"]["tokens"] <= usage.completion_tokens
