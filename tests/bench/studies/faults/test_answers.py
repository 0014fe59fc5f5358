"""What is exactly one well-formed answer, and what is not."""

from typing import Any

import orjson
import pytest

from bench.studies.faults.answers import Answer, Malformed, read
from bench.studies.faults.asks import fine

PLAIN, STREAM = fine(1), fine(1, stream=True)
USAGE = {"completion_tokens": 3, "prm_tokens": 0}
WHOLE = {
    "id": "x",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
    "usage": {"completion_tokens": 3},
    "tts": {"usage": USAGE},
}
ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": "upstream_error"}}


def response(body: Any, status: int = 200) -> bytes:
    content = orjson.dumps(body)
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content)


def stream(*frames: Any, done: bytes = b"data: [DONE]\n\n") -> bytes:
    content = b"".join(b"data: %b\n\n" % orjson.dumps(frame) for frame in frames) + done
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], **fields}


def test_an_answer_and_an_error_are_read() -> None:
    assert read(response(WHOLE), PLAIN) == Answer(200, None, USAGE)
    assert read(response(ERROR, 502), PLAIN) == Answer(502, "upstream_error")


def test_a_stream_and_one_that_ends_in_an_error_are_read() -> None:
    ending = {"choices": [], "usage": {"completion_tokens": 3}, "tts": {"usage": USAGE}}
    assert read(stream(delta(), delta("stop"), ending), STREAM) == Answer(200, None, USAGE)
    assert read(stream(delta(), ERROR), STREAM) == Answer(200, "upstream_error")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no whole head"),
        (response(WHOLE) * 2, "not as long"),
        (response(WHOLE)[:-1], "not as long"),
        (response(ERROR, 418), "status 418"),
        (response({"detail": "no"}, 500), "an error"),
        (response(ERROR), "no id"),
        (response({**WHOLE, "choices": []}), "no choices"),
        (response({**WHOLE, "usage": {"completion_tokens": 4}}), "differ"),
        (response(WHOLE)[:20], "no whole head"),
    ],
)
def test_what_is_no_plain_answer_is_malformed(raw: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(raw, PLAIN)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (stream(delta(), delta("stop"), done=b""), "no \\[DONE\\]"),
        (stream(delta(), delta("stop")) * 2, "more than one"),
        (stream(delta(), delta("stop"))[:-7], "breaks off"),
        (stream(delta()), "no finish reason"),
        (stream(delta("stop"), delta()), "behind the end"),
        (stream(ERROR, delta("stop")), "behind an error"),
        (response(WHOLE), "another type"),
    ],
)
def test_what_is_no_stream_is_malformed(raw: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        read(raw, STREAM)
