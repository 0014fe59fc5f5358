import json

from bench.studies.peers.stub import ANSWER, answer


def body(response: bytes) -> str:
    return response.partition(b"\r\n\r\n")[2].decode()


def test_a_completion_has_n_answers_and_their_usage() -> None:
    seen = json.loads(body(answer(b"POST", b"/v1/chat/completions", b'{"n": 3}')))
    assert [choice["message"]["content"] for choice in seen["choices"]] == [ANSWER] * 3
    assert seen["usage"]["completion_tokens"] == 48


def test_a_stream_tells_each_answer_in_one_piece_and_its_usage_when_asked() -> None:
    asked = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    text = body(answer(b"POST", b"/v1/chat/completions", json.dumps(asked).encode()))
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    *frames, last = map(json.loads, events)
    assert [frame["choices"][0]["delta"].get("content") for frame in frames].count(ANSWER) == 2
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 32


def test_another_path_is_not_there() -> None:
    assert answer(b"POST", b"/tokenize", b"{}").startswith(b"HTTP/1.1 404 ")
    assert answer(b"GET", b"/v1/models", b"").startswith(b"HTTP/1.1 200 ")
