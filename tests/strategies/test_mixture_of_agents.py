import asyncio
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Message, Progress, Prompt, Refused, Sampling, Task
from strategies.mixture_of_agents import AGGREGATE
from strategies.sampling.draw import TEMPERATURE
from tts_server.engines.fake import FakeEngine, FakeRequest


class Policy:
    """Numbers its answers in the order of asking."""

    def __init__(self) -> None:
        self.asked: list[FakeRequest] = []

    def __call__(self, request: FakeRequest) -> str:
        self.asked.append(request)
        return rf"Answer \boxed{{{len(self.asked)}}}"

    @property
    def systems(self) -> list[str]:
        return [request.messages[0]["content"] if len(request.messages) > 1 else "" for request in self.asked]


def run(script: Any, *, task: Task = TASK, budget: Budget | None = None, **options: Any) -> Search:
    engine = FakeEngine(script)
    return asyncio.run(search(strategies.get("mixture_of_agents"), engine, task=task, budget=budget, **options))


def test_each_layer_sees_the_one_before_and_the_last_is_one_answer() -> None:
    policy = Policy()
    done = run(policy, layers=3, proposers=2)
    first, second, last = policy.systems[:2], policy.systems[2:4], policy.systems[4:]
    assert first == ["", ""]
    assert set(second) == {
        f"{AGGREGATE}\n\nAnswers of the assistants:\n\n1. Answer \\boxed{{1}}\n\n2. Answer \\boxed{{2}}"
    }
    assert last == [second[0].replace("{1}", "{3}").replace("{2}", "{4}")]
    assert done.final.best.answer == "5"
    assert len(done.final.candidates) == 1
    assert done.final.selector is None
    assert done.account.usage.samples == 5


def test_one_layer_is_one_answer() -> None:
    policy = Policy()
    assert run(policy, layers=1).account.usage.samples == 1
    assert policy.systems == [""]


def test_proposals_of_one_prompt_are_one_call() -> None:
    policy = Policy()
    run(policy, layers=2, proposers=4)
    assert [request.index for request in policy.asked] == [0, 1, 2, 3, 0]


def test_prompts_tell_proposers_apart_in_turn() -> None:
    policy = Policy()
    done = run(policy, layers=3, proposers=3, proposer_prompts=["Be bold.", "Be careful."])
    assert sorted(policy.systems[:3]) == ["Be bold.", "Be bold.", "Be careful."]
    assert [system.partition("\n\n")[0] for system in policy.systems[3:6]] == ["Be bold.", "Be bold.", "Be careful."]
    assert AGGREGATE in policy.systems[3]
    assert policy.systems[6].startswith(AGGREGATE)
    assert done.events[0] == Progress("one model proposes 3 times a layer; the proposers differ by 2 system prompts")


def test_more_prompts_than_proposers_are_left_out() -> None:
    policy = Policy()
    run(policy, layers=2, proposers=1, proposer_prompts=["A", "B"])
    assert policy.systems[0] == "A"
    assert len(policy.asked) == 2


def test_it_says_that_one_model_proposes() -> None:
    assert run(Policy()).events[0] == Progress("one model proposes 6 times a layer; the proposers differ by sampling")


def test_the_clients_own_system_prompt_stays() -> None:
    turns: tuple[Message, ...] = ({"role": "system", "content": "Own."}, *TASK.prompt.messages)
    policy = Policy()
    run(policy, task=replace(TASK, prompt=Prompt(turns)), layers=2, proposers=1)
    assert policy.systems[0] == "Own."
    assert policy.systems[1].endswith("\n\nOwn.")


def test_proposals_differ_and_the_last_answer_is_sampled_as_asked() -> None:
    policy = Policy()
    run(policy, layers=3, proposers=2, task=replace(TASK, sampling=Sampling(seed=5, max_tokens=99)))
    assert [r.sampling.temperature for r in policy.asked] == [TEMPERATURE] * 4 + [None]
    assert len({r.sampling.seed for r in policy.asked}) == 3
    assert {r.sampling.max_tokens for r in policy.asked} == {99}


def test_thoughts_are_not_handed_on() -> None:
    policy = Policy()

    def script(request: FakeRequest) -> str:
        return "<think>long</think>\n\n" + policy(request)

    run(script, layers=2, proposers=1)
    assert policy.systems[1].endswith("1. Answer \\boxed{1}")


def test_what_failed_or_was_cut_is_not_handed_on() -> None:
    def script(request: FakeRequest) -> str:
        if request.index == 0 and len(request.messages) == 1:
            raise ConnectionError("lost")
        return "too long " * 9 if request.index == 1 and len(request.messages) == 1 else policy(request)

    policy = Policy()
    run(script, layers=2, proposers=3, task=replace(TASK, sampling=Sampling(max_tokens=8)))
    assert policy.systems[-1].endswith("assistants:\n\n1. Answer \\boxed{1}")


def test_an_aggregator_that_fails_leaves_the_majority_of_the_proposals() -> None:
    def script(request: FakeRequest) -> str:
        if len(request.messages) > 1:
            raise ConnectionError("lost")
        return rf"\boxed{{{[1, 2, 2][request.index]}}}"

    final = run(script, layers=4, proposers=3).final
    assert (final.best.answer, final.selector) == ("2", "majority")


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_a_spent_budget_returns_the_last_whole_layer(samples: int) -> None:
    done = run(Policy(), layers=3, proposers=2, budget=Budget(max_samples=samples))
    assert done.final.best.sample.finish_reason == "eos"
    assert done.account.stop_reason == "max_samples"


def test_choices_are_answers_of_the_aggregator() -> None:
    done = run(Policy(), layers=2, proposers=2, task=replace(TASK, choices=2))
    assert [c.answer for c in done.final.candidates] == ["3", "4"]
    assert done.final.ranking == (0, 1)


def test_it_needs_a_conversation() -> None:
    with pytest.raises(Refused):
        run(Policy(), task=Task(Prompt(token_ids=(1, 2))))
