"""How a body becomes a result, or the error that it is none."""

from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from tts_server.client.errors import MAX_SHOWN, UnexpectedAnswer
from tts_server.client.results import Answer

A = TypeVar("A", bound=Answer)


def answer_of(kind: type[A], body: Any, request_id: str | None) -> A:
    """Reads a body.

    Raises:
        UnexpectedAnswer: it is none of this kind.
    """
    try:
        answer = kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        shown = repr(body)[:MAX_SHOWN]
        raise UnexpectedAnswer(f"The server's answer is no {kind.__name__}: {place}: {first['msg']}; {shown}") from None
    return answer.came_as(body, request_id)


def answer_in(kind: type[A], response: httpx.Response) -> A:
    """Reads a response's body.

    Raises:
        UnexpectedAnswer: it is no JSON, or none of this kind.
    """
    try:
        body = response.json()
    except ValueError:
        raise UnexpectedAnswer(f"The server's answer is no JSON: {response.text[:MAX_SHOWN]!r}") from None
    return answer_of(kind, body, response.headers.get("x-request-id"))
