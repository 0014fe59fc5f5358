"""Events to bodies and chunks: both from the same events, and both whole."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from strategies.core.account import Account, Usage
from strategies.core.contracts import Candidate, Chunk, Delta, Event, Final, Incumbent, Progress, Sample, TokenLogprob
from tts_server.answer.chat import LOGPROB_FLOOR, Envelope, chunks, completion


def sample(*texts: str, index: int = 0, end: Any = "eos", error: Exception | None = None) -> Sample:
    grown = [Chunk(index, text=text, completion_tokens=1) for text in texts]
    return Sample([*grown, Chunk(index, finish_reason=end, completion_tokens=1, error=error)])


def envelope(**fields: Any) -> Envelope:
    usage = Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=20, samples=3, prm_tokens=4, prm_calls=1)
    return Envelope(model="m", strategy="s", account=Account(usage=usage), **fields)


async def told(*events: Event) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event


def streamed(given: Envelope, *events: Event) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        return [chunk async for chunk in chunks(told(*events), given)]

    return asyncio.run(main())


def whole(given: Envelope, *events: Event) -> dict[str, Any]:
    return asyncio.run(completion(told(*events), given))


def deltas(rendered: list[dict[str, Any]], index: int) -> list[tuple[dict[str, Any], str | None]]:
    choices = [choice for chunk in rendered for choice in chunk["choices"] if choice["index"] == index]
    return [(choice["delta"], choice["finish_reason"]) for choice in choices]


FIRST, SECOND = Candidate(sample("a", "b"), "1"), Candidate(sample("c", index=1, end="length"), "2", (0.5,), 0.5, 0.5)
FINAL = Final((FIRST, SECOND), (1, 0), "best", 0.5)


def test_a_body_has_everything_that_openai_requires() -> None:
    given = envelope()
    seen = whole(given, Progress("x"), Incumbent(FIRST), FINAL)
    seen["tts"]["usage"].pop("wall_s")
    assert seen == {
        "id": given.id,
        "object": "chat.completion",
        "created": given.created,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "c", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 20,
            "total_tokens": 25,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 18},
        },
        "tts": {
            "trace_id": given.trace_id,
            "strategy": "s",
            "selector": "best",
            "answer": "2",
            "score": 0.5,
            "confidence": 0.5,
            "stop_reason": None,
            "samples": 3,
            "votes": [],
            "usage": {
                "engine_prompt_tokens": 0,
                "cached_prompt_tokens": 0,
                "completion_tokens": 20,
                "prm_tokens": 4,
                "prm_calls": 1,
            },
        },
    }


def test_the_chunks_of_a_search_come_in_order() -> None:
    given = envelope(include_usage=True)
    seen = streamed(given, Progress("x"), Incumbent(FIRST), Progress("y"), FINAL)
    *said, spent = seen
    assert deltas(said, 0) == [
        ({"role": "assistant", "content": ""}, None),
        ({"reasoning": "x\n", "reasoning_content": "x\n"}, None),
        ({"reasoning": "y\n", "reasoning_content": "y\n"}, None),
        ({"content": "c"}, None),
        ({}, "length"),
    ]
    assert [(c["id"], c["object"], c["created"], c["model"]) for c in seen] == [
        (given.id, "chat.completion.chunk", given.created, "m")
    ] * len(seen)
    assert ["tts" in chunk for chunk in said] == [False] * 4 + [True]
    assert ["usage" in chunk for chunk in said] == [False] * 5
    assert spent["choices"] == []
    assert spent["usage"] == whole(given, FINAL)["usage"]


def test_text_that_went_out_is_not_sent_twice() -> None:
    seen = streamed(envelope(), *(Delta(c) for c in FIRST.sample.chunks), Final((FIRST,), (0,)))
    assert deltas(seen, 0) == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "a"}, None),
        ({"content": "b"}, None),
        ({}, "stop"),
    ]


def test_several_choices_each_begin_and_end() -> None:
    seen = streamed(envelope(choices=2), Progress("x"), FINAL)
    assert [delta for delta, _ in deltas(seen, 0)][-2:] == [{"content": "c"}, {}]
    assert [delta for delta, _ in deltas(seen, 1)] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [[d for d in deltas(seen, i) if d[1]] for i in (0, 1)] == [[({}, "length")], [({}, "stop")]]
    assert [len(chunk["choices"]) for chunk in seen] == [1] * len(seen)


def test_a_choice_that_failed_after_its_text_ends_too_and_the_others_stay_in_place() -> None:
    broken = sample("b", index=1, end="error", error=ValueError("x"))
    candidates = tuple(Candidate(s) for s in (sample("a"), broken, sample("c", index=2)))
    events = [Delta(chunk) for c in candidates for chunk in c.sample.chunks]
    seen = streamed(envelope(choices=3), *events, Final(candidates, (0, 2)))
    ends = [[(d.get("content"), end) for d, end in deltas(seen, i)[1:]] for i in range(3)]
    assert ends == [
        [("a", None), (None, "stop")],
        [("b", None), (None, "length")],
        [("c", None), (None, "stop")],
    ]


def test_a_choice_that_the_budget_left_no_sample_for_still_ends() -> None:
    seen = streamed(envelope(choices=2), Progress("x"), Final((FIRST,), (0,)))
    assert deltas(seen, 1) == [({"role": "assistant", "content": ""}, None), ({}, "length")]
    assert "tts" in seen[-1]


@pytest.mark.parametrize(
    ("reason", "word"),
    [("eos", "stop"), ("stop", "stop"), ("length", "length"), ("budget", "length"), (None, "length")],
)
def test_finish_reasons(reason: Any, word: str) -> None:
    final = Final((Candidate(sample("a", end=reason)),), (0,))
    assert whole(envelope(), final)["choices"][0]["finish_reason"] == word
    assert deltas(streamed(envelope(), final), 0)[-1] == ({}, word)


def test_every_token_s_logprob_comes_also_of_those_without_text() -> None:
    rival = TokenLogprob("é", float("-inf"))
    pieces = [
        Chunk(0, text="", logprobs=(TokenLogprob("\ufffd", -0.5, 1, (rival,)),), completion_tokens=1),
        Chunk(0, text="é", logprobs=(TokenLogprob("é", -0.25, 2),), completion_tokens=1, finish_reason="eos"),
    ]
    final = Final((Candidate(Sample(pieces)),), (0,))
    wanted = [
        {
            "token": "\ufffd",
            "logprob": -0.5,
            "bytes": [239, 191, 189],
            "top_logprobs": [{"token": "é", "logprob": -9999.0, "bytes": [195, 169]}],
        },
        {"token": "é", "logprob": -0.25, "bytes": [195, 169], "top_logprobs": []},
    ]
    given = envelope(logprobs=True)
    assert whole(given, final)["choices"][0]["logprobs"] == {"content": wanted, "refusal": None}
    for events in ([final], [*map(Delta, pieces), final]):
        choices = [c for chunk in streamed(given, *events) for c in chunk["choices"]]
        assert [p for c in choices if c["logprobs"] for p in c["logprobs"]["content"]] == wanted
        assert "".join(c["delta"].get("content", "") for c in choices) == "é"
    assert [c["choices"][0]["logprobs"] for c in streamed(envelope(), final)] == [None] * 3


def test_candidates_come_when_asked_for_and_say_what_failed() -> None:
    broken = Candidate(sample(end="error", error=ValueError("/etc/secret")))
    final = Final((FIRST, SECOND, broken), (0, 1))
    assert "candidates" not in whole(envelope(), final)["tts"]
    told = whole(envelope(return_candidates=True), final)["tts"]["candidates"]
    assert told == [
        {
            "text": "ab",
            "answer": "1",
            "score": None,
            "step_scores": None,
            "weight": 0.0,
            "logprob": None,
            "finish_reason": "stop",
            "completion_tokens": 3,
        },
        {
            "text": "c",
            "answer": "2",
            "score": 0.5,
            "step_scores": (0.5,),
            "weight": 0.5,
            "logprob": None,
            "finish_reason": "length",
            "completion_tokens": 2,
        },
        {
            "text": "",
            "answer": None,
            "score": None,
            "step_scores": None,
            "weight": 0.0,
            "logprob": None,
            "finish_reason": "error",
            "completion_tokens": 1,
            "error": "The server failed to answer this request.",
        },
    ]


def test_a_candidate_tells_its_logprob_where_it_is_known() -> None:
    tokens = (TokenLogprob("a", -0.5), TokenLogprob("b", -0.25), TokenLogprob("c", -math.inf))
    final = Final((Candidate(Sample([Chunk(0, "ab", logprobs=tokens[:2]), Chunk(0, "c", logprobs=tokens[2:])])),), (0,))
    (told,) = whole(envelope(return_candidates=True), final)["tts"]["candidates"]
    assert told["logprob"] == -0.75 + LOGPROB_FLOOR


def test_a_strategy_without_an_end_is_an_error_in_both() -> None:
    for render in (whole, streamed):
        with pytest.raises(RuntimeError, match="without a final event"):
            render(envelope(), Progress("x"))


def test_two_answers_never_share_an_id() -> None:
    assert len({envelope().id for _ in range(100)} | {envelope().trace_id for _ in range(100)}) == 200
