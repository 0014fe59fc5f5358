"""One request to this very server without a connection, so that a batch's line is answered by the same code."""

import asyncio
import logging

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from strategies.core.account import Account
from tts_server.batches.records import Answer, new_id
from tts_server.errors import translate
from tts_server.request_state import RequestState

log = logging.getLogger(__name__)


async def dispatch(
    app: ASGIApp, endpoint: str, body: bytes, owner: str, accounts: list[Account] | None = None
) -> Answer:
    """What the app answers to a request of the owner's; cancelling this cancels the request.

    What it costs is told by `accounts`, which gets those that pay for it.
    """
    request_id = new_id("req_")
    said = iter([{"type": "http.request", "body": body, "more_body": False}])
    heard: list[Message] = []

    async def receive() -> Message:
        if (message := next(said, None)) is not None:
            return message
        # Its client never leaves: who does not want the answer any more cancels.
        return await asyncio.Future()

    async def send(message: Message) -> None:
        heard.append(message)

    scope = _scope(endpoint, body)
    RequestState(request_id, owner, is_batch_line=True, accounts=[] if accounts is None else accounts).enter(scope)
    try:
        await app(scope, receive, send)
    except Exception as error:
        # A server would log it as well, and the app has answered what it could.
        log.exception("%s: a batch's line failed", request_id)
        if not heard or heard[-1]["type"] == "http.response.start" or heard[-1].get("more_body"):
            failed = translate(error)
            return Answer(failed.status, request_id, orjson.dumps(failed.body))
    return _answer(heard, request_id)


def _answer(heard: list[Message], request_id: str) -> Answer:
    start, *parts = heard
    headers = Headers(raw=start["headers"])
    wait = headers.get("retry-after", "")
    return Answer(
        start["status"],
        request_id,
        b"".join(part.get("body", b"") for part in parts),
        headers.get("x-should-retry") != "false",
        float(wait) if wait.isascii() and wait.isdigit() else None,
    )


def _scope(endpoint: str, body: bytes) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": endpoint,
        "raw_path": endpoint.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": None,
        "server": None,
    }
