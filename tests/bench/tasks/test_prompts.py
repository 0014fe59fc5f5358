import re

import pytest

from bench.tasks import PROMPTS, prompt
from strategies.answers import extract


@pytest.mark.parametrize("name", PROMPTS)
def test_the_question_is_asked_last_and_as_it_is(name: str) -> None:
    question = "What is {x} + 1,\nif $x = 2$?"
    messages = prompt(name).messages(question)
    assert messages[-1] == {"role": "user", "content": question}
    assert [message["role"] for message in messages].count("system") <= 1


def test_the_zero_shot_prompts_are_a_system_message() -> None:
    for name, sign in (("boxed", r"\boxed{}"), ("steps", "## Step 1: ")):
        system, _ = prompt(name).messages("?")
        assert system["role"] == "system"
        assert sign in system["content"]


def test_eight_exemplars_are_earlier_turns() -> None:
    messages = prompt("cot8").messages("?")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 8 + ["user"]
    answers = [extract(message["content"]) for message in messages[1::2]]
    assert answers == ["6", "5", "39", "8", "9", "29", "33", "8"]


@pytest.mark.parametrize(("question", "solution"), PROMPTS["cot8"].shots)
def test_an_exemplar_computes_with_the_numbers_of_its_question(question: str, solution: str) -> None:
    assert set(re.findall(r"\d+", question)) <= set(re.findall(r"\d+", solution))


def test_prompts_that_ask_alike_have_the_same_hash() -> None:
    hashes = {template.sha256 for template in PROMPTS.values()}
    assert len(hashes) == len(PROMPTS)


def test_a_prompt_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="there is no prompt 'box'; there are boxed, steps, cot8, plain"):
        prompt("box")
