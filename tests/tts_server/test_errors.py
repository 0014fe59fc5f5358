"""The drawing, the classes and the seam."""

import inspect
import re

import pytest

from prm import PRMError, PRMInputError
from strategies.core.contracts import Refused
from tts_server import errors
from tts_server.errors import APIError, ContextTooLong, EngineUnavailable, InvalidAPIKey, Timeout, translate

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, APIError)]


def test_the_drawing_is_the_hierarchy() -> None:
    drawn = {m[1]: (int(m[2]), m[3]) for m in re.finditer(r"(\w+) +(\d{3}) (\w+)", errors.__doc__ or "")}
    assert drawn == {c.__name__: (c.status, c.code) for c in CLASSES}


def test_each_class_has_its_own_code() -> None:
    codes = [c.code for c in CLASSES]
    assert len(codes) == len(set(codes)) > 10


@pytest.mark.parametrize("kind", CLASSES)
def test_types_are_those_of_openai(kind: type[APIError]) -> None:
    wanted = "rate_limit_error" if kind.status == 429 else "server_error" if kind.status >= 500 else None
    assert kind.type == (wanted or "invalid_request_error")


def test_body_has_all_four_keys() -> None:
    assert APIError("it broke").body == {
        "error": {"message": "it broke", "type": "server_error", "param": None, "code": "internal_error"}
    }


def test_nothing_long_comes_back() -> None:
    error = APIError("m" * 10**6, param="p" * 10**6)
    assert len(error.message) == errors.MAX_MESSAGE
    assert len(error.param or "") == errors.MAX_PARAM
    assert len(errors.shown("x" * 10**6)) < 100
    assert errors.shown("x'") == '"x\'"'


def test_headers_that_clients_act_on() -> None:
    assert EngineUnavailable("down", retry_after_s=7).headers == {"Retry-After": "7"}
    assert InvalidAPIKey("no").headers == {"WWW-Authenticate": "Bearer"}
    assert Timeout("late").headers == {"x-should-retry": "false"}


def test_context_overflow_has_the_words_that_clients_look_for() -> None:
    said = ContextTooLong(50, 40).message
    assert "maximum context length is 40 tokens" in said
    assert "50 tokens (context_length_exceeded)" in said


@pytest.mark.parametrize(
    ("error", "status", "code", "param", "message"),
    [
        (Refused("not beam", "tts.strategy"), 400, "unsupported_parameter", "tts.strategy", "not beam"),
        (PRMInputError("a blank step"), 400, "invalid_value", "steps", "a blank step"),
        (PRMError("2 scores"), 500, "internal_error", None, "The reward model failed: 2 scores"),
        (ValueError("/etc/secret"), 500, "internal_error", None, "The server failed to answer this request."),
        (
            ExceptionGroup("both", [ExceptionGroup("in", [Refused("first", "n")]), ValueError("second")]),
            400,
            "unsupported_parameter",
            "n",
            "first",
        ),
    ],
)
def test_errors_from_below(error: Exception, status: int, code: str, param: str | None, message: str) -> None:
    seen = translate(error)
    assert (seen.status, seen.code, seen.param, seen.message) == (status, code, param, message)


def test_an_api_error_stays_itself() -> None:
    error = Timeout("late")
    assert translate(error) is error
