import pytest

from strategies.core.contracts import (
    Candidate,
    Chunk,
    Engine,
    Final,
    FinishReason,
    Message,
    Prompt,
    Sample,
    Task,
    TokenLogprob,
    text_of,
)
from tts_server.engines.fake import FakeEngine


def test_a_sample_is_what_its_chunks_say() -> None:
    logprobs = (TokenLogprob("a", -0.1), TokenLogprob("b", -0.2))
    sample = Sample([Chunk(0, "Hello", (1, 2), 2, logprobs[:1], prompt_tokens=9), Chunk(0, "", (), 0)])
    assert sample.finish_reason is None
    assert not sample.finished
    sample.chunks.append(Chunk(0, " you", (3,), 2, logprobs[1:], finish_reason="eos"))
    assert sample.text == "Hello you"
    assert sample.pieces == ("Hello", " you")
    assert sample.token_ids == (1, 2, 3)
    assert sample.completion_tokens == 4
    assert sample.logprobs == logprobs
    assert sample.finish_reason == "eos"


def test_an_empty_sample_is_unfinished() -> None:
    assert Sample().finish_reason is None
    assert Sample().text == ""
    assert Sample().completion_tokens == 0


@pytest.mark.parametrize(
    ("reason", "finished"), [("eos", True), ("stop", True), ("length", False), ("budget", False), ("error", False)]
)
def test_only_the_model_finishes_a_sample(reason: FinishReason, finished: bool) -> None:
    assert Sample([Chunk(0, "x", finish_reason=reason)]).finished == finished


def test_samples_do_not_share_their_chunks() -> None:
    one, other = Sample(), Sample()
    one.chunks.append(Chunk(0, "x"))
    assert other.chunks == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "plain"}, "plain"),
        ({"role": "assistant", "content": None}, ""),
        ({"role": "assistant", "tool_calls": []}, ""),
        ({"role": "user", "content": []}, ""),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "x"}, {"type": "text", "text": "b"}]},
            "ab",
        ),
    ],
)
def test_the_text_of_a_message(message: Message, text: str) -> None:
    assert text_of(message) == text


def test_the_question_is_the_last_user_turn() -> None:
    turns: tuple[Message, ...] = (
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "second"}]},
        {"role": "assistant", "content": "beginning"},
    )
    assert Task(Prompt(turns)).question == "second"
    assert Task(Prompt(({"role": "system", "content": "Be brief."},))).question == ""


def test_the_best_stands_first_in_the_ranking() -> None:
    candidates = tuple(Candidate(Sample([Chunk(i, f"text {i}")])) for i in range(3))
    final = Final(candidates, (2, 0, 1))
    assert final.best is candidates[2]
    assert final.best.text == "text 2"


def test_an_engine_is_known_by_its_shape() -> None:
    assert isinstance(FakeEngine(), Engine)
    assert not isinstance(object(), Engine)
