"""Whether what came over a connection is exactly one well-formed answer or error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bench.studies.faults.asks import CHAT, RESPONSES, SCORE, TEXT, Ask

ERROR_KEYS = {"message", "type", "param", "code"}
DECLARED = {400, 401, 404, 405, 413, 429, 500, 502, 503, 504, 507}
"""The statuses of errors that the server declares."""
FINISH = {"stop", "length", "tool_calls", "content_filter"}


class Malformed(Exception):
    """It is not what the API says; the message is why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request was told."""

    status: int
    error: str | None = None
    """The error's code; also of one that ended a stream."""
    usage: Mapping[str, int] | None = None
    """The search's whole cost, where the answer tells it."""


def read(raw: bytes, ask: Ask) -> Answer:
    """The answer in all that a connection carried until its end.

    Raises:
        Malformed: it is none, or more than one, or not of its route's form.
    """
    status, headers, body = split(raw)
    if status != 200:
        _demand(status in DECLARED, f"status {status}")
        return Answer(status, _error_code(_json(body)))
    if not ask.stream:
        return Answer(200, None, _whole(_json(body), ask))
    _demand(headers.get("content-type", "").startswith("text/event-stream"), "a stream of another type")
    return _typed_stream(body) if ask.path == RESPONSES else _stream(body, ask)


def split(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one response that these bytes are."""
    head, found, rest = raw.partition(b"\r\n\r\n")
    _demand(bool(found), f"no whole head in {len(raw)} bytes")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    _demand(words[0] == "HTTP/1.1" and len(words) > 1 and words[1].isdigit(), f"a first line {first[:60]!r}")
    pairs = [line.partition(":") for line in lines]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    _demand(len(headers) == len(pairs), "a header that comes twice")
    if headers.get("transfer-encoding") == "chunked":
        return int(words[1]), headers, _dechunked(rest)
    _demand(headers.get("content-length") == str(len(rest)), "a body that is not as long as it says")
    return int(words[1]), headers, rest


def _dechunked(rest: bytes) -> bytes:
    parts: list[bytes] = []
    while True:
        line, found, rest = rest.partition(b"\r\n")
        _demand(bool(found), "a stream that breaks off")
        size = int(line, 16)
        _demand(rest[size : size + 2] == b"\r\n", "a chunk that breaks off")
        if size == 0:
            _demand(rest == b"\r\n", "more than one response")
            return b"".join(parts)
        parts.append(rest[:size])
        rest = rest[size + 2 :]


def _whole(body: Any, ask: Ask) -> Mapping[str, int] | None:
    if ask.path == SCORE:
        _demand(_is(body.get("scores"), list) and body.get("object") == "prm.score", "no scores")
        return None
    for key in ("id", "object", "model", "usage"):
        _demand(key in body, f"no {key}")
    if ask.path == RESPONSES:
        _demand(body["object"] == "response" and body["status"] in ("completed", "incomplete"), "no ended response")
        return _cost(body)
    _demand(body["object"] == {CHAT: "chat.completion", TEXT: "text_completion"}[ask.path], "another object")
    _demand(bool(body["choices"]), "no choices")
    for choice in body["choices"]:
        text = choice["message"]["content"] if ask.path == CHAT else choice["text"]
        _demand(_is(text, str), "no text")
        _demand(choice["finish_reason"] in FINISH, f"finish reason {choice['finish_reason']!r}")
    return _cost(body)


def _stream(body: bytes, ask: Ask) -> Answer:
    chunks = _events(body)
    _demand(chunks.pop() == b"[DONE]", "no [DONE] at the end")
    _demand(b"[DONE]" not in chunks, "two ends")
    ended = False
    usage: Mapping[str, int] | None = None
    for number, chunk in enumerate(map(_json, chunks)):
        if "error" in chunk:
            _demand(number == len(chunks) - 1, "more behind an error")
            return Answer(200, _error_code(chunk))
        _demand(_is(chunk.get("choices"), list), "a chunk without choices")
        for choice in chunk["choices"]:
            _demand(not ended, "more behind the end")
            _demand(_is(choice.get("delta") if ask.path == CHAT else choice.get("text"), dict | str), "no delta")
            ended = choice["finish_reason"] is not None
        usage = _cost(chunk) or usage
    _demand(ended, "no finish reason")
    return Answer(200, None, usage)


def _typed_stream(body: bytes) -> Answer:
    events = [_json(data) for data in _events(body)]
    _demand([event["sequence_number"] for event in events] == list(range(len(events))), "a gap in the events")
    last, kinds = events[-1], [event["type"] for event in events]
    ends = {"response.completed", "response.incomplete", "response.failed", "error"}
    _demand(kinds[-1] in ends, f"an end with {kinds[-1]!r}")
    if kinds[-1] in ("error", "response.failed"):
        return Answer(200, kinds[-1])
    _demand(not ends & set(kinds[:-1]), "two ends")
    return Answer(200, None, _cost(last["response"]))


def _events(body: bytes) -> list[bytes]:
    _demand(body.endswith(b"\n\n"), "a stream that ends in an event")
    found = []
    for event in body.removesuffix(b"\n\n").split(b"\n\n"):
        data = [line for line in event.split(b"\n") if not line.startswith(b"event: ")]
        _demand(len(data) == 1 and data[0].startswith(b"data: "), f"an event {event[:60]!r}")
        found.append(data[0].removeprefix(b"data: "))
    return found


def _cost(body: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Generated and scored tokens."""
    told = body.get("tts") or {}
    used = told.get("usage")
    if used is None:
        return None
    usage = body.get("usage") or {}
    generated = usage.get("completion_tokens", usage.get("output_tokens", used["completion_tokens"]))
    _demand(generated == used["completion_tokens"], "two usages that differ")
    return {"completion_tokens": used["completion_tokens"], "prm_tokens": used["prm_tokens"]}


def _error_code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    _demand(isinstance(error, dict) and set(error) == ERROR_KEYS, f"an error {str(body)[:80]}")
    return str(error["code"]) if isinstance(error, dict) else ""


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Malformed(f"no JSON: {data[:60]!r}") from None


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind)


def _demand(true: bool, why: str) -> None:
    if not true:
        raise Malformed(why)
