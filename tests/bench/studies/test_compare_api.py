from typing import Any

from bench.studies.compare_api import REASONS, REQUESTS, Answer, Difference, differences, reason, table


def answer(*frames: Any, status: int = 200) -> Answer:
    return Answer(status, "application/json", list(frames))


def test_the_same_shape_is_no_difference() -> None:
    mine = answer({"id": "a", "choices": [{"text": "x", "logprobs": None}], "n": 1})
    other = answer({"n": 2.5, "choices": [{"logprobs": None, "text": "y"}, {"logprobs": None, "text": ""}], "id": "b"})
    assert differences(mine, other) == []


def test_a_place_that_only_one_has_is_told_once() -> None:
    mine = answer({"tts": {"answer": "4", "votes": [{"count": 1}]}, "id": "a"})
    assert differences(mine, answer({"id": 3})) == [
        Difference("id", "string", "number"),
        Difference("tts", "object", "absent"),
    ]


def test_status_and_finish_reasons_are_looked_at() -> None:
    mine, other = answer({"choices": [{"finish_reason": "stop"}]}), answer({"choices": [{"finish_reason": "length"}]})
    assert [d.where for d in differences(mine, other)] == ["(finish reasons)"]
    assert [d.where for d in differences(mine, mine._replace(status=400))] == ["(status)"]


def test_the_table_has_a_line_a_difference_with_its_reason() -> None:
    unknown = Difference("nothing.of.this", "string", "absent")
    lines = table({"one": [unknown], "two": [unknown]})
    assert lines[2:] == ["| `nothing.of.this` | string | absent | one, two | **not known** |"]


def test_requests_have_names_of_their_own_and_every_reason_is_one_sentence() -> None:
    assert len({request.name for request in REQUESTS}) == len(REQUESTS) >= 30
    assert reason(Difference("nothing.of.this", "", "")) is None
    assert all(why.strip() for why in REASONS.values())
