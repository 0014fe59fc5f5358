from typing import Any

import pytest
from pydantic import ValidationError

import strategies
from strategies.core.contracts import Message, Prompt, Sampling, Task
from strategies.core.prompts import BOXED, Example, prompted

USER: Message = {"role": "user", "content": "1 + 1?"}
EXAMPLES: list[Example] = [{"question": "2 + 2?", "answer": "4"}, {"question": "3 + 3?", "answer": "6"}]
SHOTS = tuple(
    turn
    for example in EXAMPLES
    for turn in (
        {"role": "user", "content": example["question"]},
        {"role": "assistant", "content": example["answer"]},
    )
)


def asked(*messages: Message) -> Task:
    return Task(Prompt(messages, template={"enable_thinking": False}), Sampling(seed=1), choices=2)


def test_without_options_the_task_stays_as_it_is() -> None:
    task = asked({"role": "developer", "content": "Be brief.", "name": "x"}, USER)
    assert prompted(task, None, None) is task
    assert prompted(task, "", []) is task


def test_boxed_stands_for_its_sentence() -> None:
    task = prompted(asked(USER), "boxed", None)
    assert task.prompt.messages == ({"role": "system", "content": BOXED}, USER)


def test_all_else_of_the_task_stays() -> None:
    task = prompted(asked(USER), "Think.", EXAMPLES)
    assert task.prompt.template == {"enable_thinking": False}
    assert (task.sampling, task.choices, task.question) == (Sampling(seed=1), 2, "1 + 1?")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_conversations_own_system_message_follows_in_the_same_turn(role: str) -> None:
    own: Message = {"role": role, "content": [{"type": "text", "text": "Be brief."}]}
    task = prompted(asked(own, USER), "Think.", EXAMPLES)
    assert task.prompt.messages == ({"role": "system", "content": "Think.\n\nBe brief."}, *SHOTS, USER)


def test_examples_are_turns_before_the_conversation() -> None:
    assert prompted(asked(USER), None, EXAMPLES).prompt.messages == (*SHOTS, USER)
    again: Message = {"role": "assistant", "content": "2"}
    assert prompted(asked(USER, again, USER), None, EXAMPLES).prompt.messages == (*SHOTS, USER, again, USER)


@pytest.mark.parametrize(
    "options",
    [
        {"examples": [{"question": "2 + 2?"}]},
        {"examples": [{"question": "2 + 2?", "answer": 4}]},
        {"examples": [{"question": "2 + 2?", "answer": "4", "solution": "…"}]},
        {"examples": EXAMPLES * 33},
        {"examples": "2 + 2 = 4"},
        {"system_prompt": "x" * 20_001},
        {"system_prompt": ["Think."]},
    ],
)
@pytest.mark.parametrize("name", ["single", "best_of_n", "self_consistency"])
def test_wrong_prompts_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        strategies.get(name).options.model_validate(options)


@pytest.mark.parametrize("name", ["single", "best_of_n", "self_consistency"])
def test_right_prompts_are_taken(name: str) -> None:
    options = {"examples": EXAMPLES, "system_prompt": "boxed"}
    given = strategies.get(name).options.model_validate(options)
    assert given.model_dump(include=set(options)) == options
