import asyncio
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from strategies.chain_of_action_thought import INSTRUCTION
from strategies.core.contracts import Message, Progress, Prompt, Task
from tts_server.engines.fake import FakeEngine, FakeRequest

SOLUTION = "<|continue|> It is 1.\n\n<|reflect|> No, 1 < 2 |> 0.\n\n<|explore|>It is \\boxed{2}."


class Policy:
    def __init__(self) -> None:
        self.asked: list[FakeRequest] = []

    def __call__(self, request: FakeRequest) -> str:
        self.asked.append(request)
        return SOLUTION


def run(script: Any, *, model: str = "fake", task: Task = TASK, **options: Any) -> Search:
    engine = FakeEngine(script, model=model)
    return asyncio.run(search(strategies.get("chain_of_action_thought"), engine, task=task, **options))


def test_the_markers_are_not_returned() -> None:
    done = run(Policy())
    best = done.final.best
    assert best.text == "It is 1.\n\nNo, 1 < 2 |> 0.\n\nIt is \\boxed{2}."
    assert best.answer == "2"
    assert best.sample.completion_tokens == done.account.usage.completion_tokens


@pytest.mark.parametrize(
    ("model", "mode", "told"),
    [
        ("fake", "auto", True),
        ("Satori-7B-Round2", "auto", False),
        ("fake", "tokens", False),
        ("Satori-7B-Round2", "prompt", True),
    ],
)
def test_a_model_is_told_of_the_actions_unless_it_was_trained_on_them(model: str, mode: str, told: bool) -> None:
    policy = Policy()
    done = run(policy, model=model, mode=mode)
    assert [m["content"] for m in policy.asked[0].messages] == [INSTRUCTION] * told + ["Is it 1 or 0?"]
    first = done.events[0]
    assert isinstance(first, Progress)
    assert ("emulation" in first.text) == told


def test_the_clients_own_system_prompt_stays() -> None:
    turns: tuple[Message, ...] = ({"role": "system", "content": "Own."}, *TASK.prompt.messages)
    policy = Policy()
    run(policy, task=replace(TASK, prompt=Prompt(turns)))
    assert policy.asked[0].messages[0]["content"] == f"{INSTRUCTION}\n\nOwn."


def test_chains_vote() -> None:
    done = run(lambda r: rf"<|continue|>\boxed{{{[1, 2, 2][r.index]}}}", n=3)
    assert done.final.best.answer == "2"
    assert done.account.usage.samples == 3
