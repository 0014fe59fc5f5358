"""Answers that go on with what the client wrote: a vote reads both, and only the model's words are returned."""

import asyncio
from typing import Any

import pytest
from serving import QUESTION, ask, serving

from prm.fake import FakePRM
from tts_server.engines.fake import FakeEngine, FakeRequest

OPENING = "The answer is $\\boxed{"
SAID = "x^2+3}$ in 7 steps."
VOTING = [
    {"strategy": "self_consistency", "n": 3},
    {"strategy": "self_consistency", "n": 3, "stopping": "esc"},
    {"strategy": "best_of_n", "n": 3},
    {"strategy": "beam_search", "n": 2, "beam_width": 2},
    {"strategy": "mcts", "n": 2},
    {"strategy": "chain_of_action_thought", "n": 2},
]


def say(request: FakeRequest) -> str:
    return SAID


async def posted(path: str, **fields: Any) -> Any:
    async with serving(FakeEngine(say), [FakePRM()]) as client:
        response = await client.post(path, json={"model": "fake", **fields})
        assert response.status_code == 200, response.text
        return response.json()


@pytest.mark.parametrize("tts", VOTING, ids=str)
def test_a_turn_that_is_continued_is_read_with_what_the_model_says(tts: dict[str, Any]) -> None:
    turns = [*QUESTION, {"role": "assistant", "content": OPENING}]
    controls = {"continue_final_message": True, "add_generation_prompt": False}
    answer = asyncio.run(posted("/v1/chat/completions", messages=turns, tts=tts, **controls))
    assert answer["tts"]["answer"] == "x^2+3"
    assert answer["choices"][0]["message"]["content"] == SAID


@pytest.mark.parametrize("tts", VOTING[:4], ids=str)
def test_the_last_line_of_a_text_is_read_with_what_the_model_says(tts: dict[str, Any]) -> None:
    prompt = f"The answer is 5.\n\n{OPENING}"
    answer = asyncio.run(posted("/v1/completions", prompt=prompt, tts=tts))
    assert answer["tts"]["answer"] == "x^2+3"
    assert answer["choices"][0]["text"] == SAID


def test_a_turn_that_is_not_continued_is_no_opening() -> None:
    async def main() -> Any:
        async with serving(FakeEngine(say)) as client:
            turns = [*QUESTION, {"role": "assistant", "content": OPENING}, *QUESTION]
            return (await ask(client, messages=turns, tts={"strategy": "self_consistency", "n": 3})).json()

    assert asyncio.run(main())["tts"]["answer"] == "7"


def test_the_answer_is_a_number_where_a_sample_gives_it_as_such() -> None:
    def sums(request: FakeRequest) -> str:
        return r"\boxed{72}" if request.index == 2 else r"\boxed{48 + 24}"

    async def main() -> Any:
        async with serving(FakeEngine(sums)) as client:
            return (await ask(client, tts={"strategy": "self_consistency", "n": 3})).json()

    answer = asyncio.run(main())
    assert answer["tts"]["answer"] == "72"
    assert [vote["answer"] for vote in answer["tts"]["votes"]] == ["72"]
    assert answer["choices"][0]["message"]["content"] == r"\boxed{72}"
