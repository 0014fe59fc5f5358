import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Progress, Sampling, Task
from tts_server.engines.fake import FakeEngine, FakeRequest


def run(engine: FakeEngine, *, task: Task = TASK, budget: Budget | None = None, **options: Any) -> Search:
    return asyncio.run(search(strategies.get("budget_forcing"), engine, task=task, budget=budget, **options))


class Policy:
    """Says what belongs behind the last of these texts that its solution ends with; keeps what it was asked."""

    def __init__(self, **replies: str) -> None:
        self.replies = {"": replies.pop("first")} | {name.replace("_", " "): text for name, text in replies.items()}
        self.asked: list[FakeRequest] = []

    def __call__(self, request: FakeRequest) -> str:
        self.asked.append(request)
        return self.replies[max((end for end in self.replies if self.solution(request).endswith(end)), key=len)]

    @staticmethod
    def solution(request: FakeRequest) -> str:
        return request.text.rpartition("<assistant>")[2]

    @property
    def continued(self) -> list[str]:
        return [self.solution(request) for request in self.asked]


def thinker(*thoughts: str, answer: str = r" \boxed{2}") -> Any:
    """A model with think tags, which thinks `thoughts` one after the other."""
    left = list(thoughts)

    def script(request: FakeRequest) -> str:
        if Policy.solution(request).endswith(("</think>", "Answer:")):
            return answer
        return left.pop(0) + "</think> never seen"

    return script


def test_the_end_of_a_thought_is_put_off() -> None:
    done = run(FakeEngine(thinker("<think>It is 1. ", ", no, it is 2. ")), min_waits=1)
    best = done.final.best
    assert best.text == r"<think>It is 1. Wait, no, it is 2. </think> \boxed{2}"
    assert (best.answer, best.sample.finish_reason) == ("2", "eos")


def test_it_waits_as_often_as_asked_and_no_more() -> None:
    policy = Policy(first=r"\boxed{1}.", Wait=r" \boxed{2}.")
    done = run(FakeEngine(policy), min_waits=3)
    assert done.final.best.text == r"\boxed{1}.Wait \boxed{2}.Wait \boxed{2}.Wait \boxed{2}."
    assert (len(policy.asked), done.account.usage.samples) == (4, 1)
    lines = [event.text for event in done.events if isinstance(event, Progress) and "made to go on" in event.text]
    assert [line.partition("(")[2][:6] for line in lines] == ["1 of 3", "2 of 3", "3 of 3"]


def test_without_waits_a_thought_ends_where_the_model_ends_it() -> None:
    done = run(FakeEngine(thinker("<think>It is 2. ")), min_waits=0)
    assert done.final.best.text == r"<think>It is 2. </think> \boxed{2}"


def test_the_wait_text_can_be_chosen_and_at_least_one_token_follows_it() -> None:
    policy = Policy(first="It is 1.", But=r" \boxed{2}")
    assert run(FakeEngine(policy), wait="\nBut").final.best.text == "It is 1.\nBut \\boxed{2}"
    assert [request.sampling.min_tokens for request in policy.asked] == [None, 1]


def test_a_resumed_chain_is_what_was_said_token_by_token() -> None:
    policy = Policy(first="It is 1.", Wait=r" \boxed{2}")
    run(FakeEngine(policy))
    assert policy.continued == ["", "It is 1.Wait"]


@pytest.mark.parametrize(
    ("opening", "text"), [("<think>", r"<think> a b c</think>Answer: \boxed{2}"), ("", r" a b c dAnswer: \boxed{2}")]
)
def test_a_thought_at_its_limit_is_closed_and_asked_for_the_answer(opening: str, text: str) -> None:
    script = thinker(opening + " a b c d e f g")
    done = run(FakeEngine(script), max_thinking_tokens=5 if opening else 4, answer_prompt="Answer:", min_waits=5)
    assert done.final.best.text == text
    assert done.final.best.answer == "2"


def test_waits_end_at_the_limit_of_the_thought() -> None:
    policy = Policy(first="one two", Wait=" one two")
    policy.replies["Answer:"] = r" \boxed{2}"
    done = run(FakeEngine(policy), min_waits=100, max_thinking_tokens=8, answer_prompt="Answer:")
    assert done.final.best.text == r"one twoWait one twoWait one twoAnswer: \boxed{2}"


def test_an_opening_tag_in_the_prompt_is_closed_too() -> None:
    turns = (*TASK.prompt.messages, {"role": "assistant", "content": "Well<think>"})
    task = replace(TASK, prompt=replace(TASK.prompt, messages=turns, template={"continue_final_message": True}))
    done = run(FakeEngine(thinker(" a b c d")), task=task, max_thinking_tokens=2, answer_prompt="Answer:")
    assert done.final.best.text == r" a b</think>Answer: \boxed{2}"


def test_max_tokens_are_those_of_the_whole_solution() -> None:
    task = replace(TASK, sampling=Sampling(max_tokens=6, seed=1))
    policy = Policy(first=" a b", Wait=" c d e f g h")
    best = run(FakeEngine(policy), task=task).final.best
    # The end that was put off is a token too; a continuation that is cut is dropped for the whole solution before it.
    assert (best.text, best.sample.finish_reason) == (" a b", "eos")
    assert policy.asked[1].sampling.max_tokens == 3


def test_no_room_behind_a_closed_thought_is_a_truncated_answer() -> None:
    task = replace(TASK, sampling=Sampling(max_tokens=3, seed=1))
    best = run(FakeEngine(thinker("<think> a b")), task=task, min_waits=0).final.best
    assert best.sample.finish_reason == "length"


def test_the_clients_stop_ends_it() -> None:
    task = replace(TASK, sampling=Sampling(stop=("STOP",), seed=1))
    policy = Policy(first="It is 1. STOP here", Wait="never")
    best = run(FakeEngine(policy), task=task).final.best
    assert (best.text, best.sample.finish_reason, len(policy.asked)) == ("It is 1. ", "stop", 1)


def test_a_budget_that_ends_a_continuation_leaves_the_whole_solution() -> None:
    policy = Policy(first=r"\boxed{1} .", Wait=" a b c d e f g h")
    done = run(FakeEngine(policy), budget=Budget(max_tokens=6))
    assert (done.final.best.text, done.final.best.sample.finish_reason) == (r"\boxed{1} .", "eos")
    assert done.account.stop_reason is not None


def test_a_continuation_that_fails_leaves_the_whole_solution() -> None:
    def script(request: FakeRequest) -> str:
        if request.text.endswith("Wait"):
            raise ConnectionError("lost")
        return r"\boxed{1}"

    assert run(FakeEngine(script)).final.best.text == r"\boxed{1}"


def test_chains_share_one_first_call_and_vote() -> None:
    def answers(given: Sequence[int]) -> Any:
        return lambda r: "" if r.text.endswith("Wait") else rf"\boxed{{{given[r.index]}}}"

    done = run(FakeEngine(answers([1, 2, 2])), n=3)
    assert done.final.best.answer == "2"
    assert done.final.confidence == pytest.approx(2 / 3)
    assert done.account.usage.samples == 3


def test_a_stop_string_across_what_is_put_in_ends_it() -> None:
    task = replace(TASK, sampling=Sampling(seed=7, stop=("Wait, no", "Wait")))
    done = run(FakeEngine(thinker("<think>It is 1. ", ", no, it is 2. ")), task=task, min_waits=1)
    best = done.final.best
    assert (best.text, best.sample.finish_reason) == ("<think>It is 1. ", "stop")
