import asyncio

import pytest
from searching import BreakingEngine

from strategies.core.contracts import Prompt, Refused, Sampling, Task
from strategies.sampling.dialogue import aside, ask, assistant_turn, conversation, followed_by, seeded, user_turn
from tts_server.engines.fake import FakeEngine, FakeRequest

QUESTION = {"role": "user", "content": "Which one?"}


def test_turns_follow_the_conversation() -> None:
    task = Task(Prompt((QUESTION,), template={"tools": [], "add_generation_prompt": True}))
    prompt = followed_by(task, [assistant_turn("<think>2?</think>\n\n1"), user_turn("Sure?")])
    assert [m["content"] for m in prompt.messages] == ["Which one?", "1", "Sure?"]
    assert prompt.template == {"tools": []}


def test_a_turn_that_was_to_be_continued_begins_the_first_one() -> None:
    task = Task(
        Prompt((QUESTION, {"role": "assistant", "content": "It is "}), template={"continue_final_message": True})
    )
    prompt = followed_by(task, [assistant_turn("1."), user_turn("Sure?")])
    assert [m["content"] for m in prompt.messages] == ["Which one?", "It is 1.", "Sure?"]
    assert prompt.template == {}


def test_without_a_conversation_nothing_can_follow() -> None:
    with pytest.raises(Refused) as caught:
        conversation(Task(Prompt(token_ids=(1, 2))))
    assert caught.value.param == "messages"


def test_an_aside_has_nothing_of_the_answers_form() -> None:
    sampling = Sampling(9, 0.5, seed=1, stop=("x",), min_tokens=3, logprobs=2, structured={"type": "json_object"})
    assert aside(sampling, 5) == Sampling(5, 0.5, seed=1)


def test_each_place_has_its_own_seed_the_same_in_every_run() -> None:
    places = [seeded(Sampling(seed=1), "review", i).seed for i in range(9)]
    assert len(set(places)) == 9
    assert places == [seeded(Sampling(seed=1), "review", i).seed for i in range(9)]
    assert seeded(Sampling(), "review").seed is None


def test_a_failure_is_the_samples_end() -> None:
    def script(request: FakeRequest) -> str:
        raise ConnectionError("lost")

    sample = asyncio.run(ask(FakeEngine(script), Prompt((QUESTION,)), Sampling(), index=3))
    assert (sample.finish_reason, sample.chunks[-1].index) == ("error", 3)
    assert isinstance(sample.chunks[-1].error, ConnectionError)


def test_a_failure_after_the_end_is_none() -> None:
    assert asyncio.run(ask(BreakingEngine(), Prompt((QUESTION,)), Sampling())).finish_reason == "eos"
