"""An input file's lines: requests, or what is wrong with them. Knows no store and no server."""

from typing import Any

import orjson

from tts_server.batches.records import BUDGET_KEY, LineError, Request
from tts_server.batches.sharing import own_compute
from tts_server.errors import shown

MAX_CUSTOM_ID = 512
"""Characters."""
MAX_ERRORS = 100
"""After as many it is not looked for more."""


class LineReader:
    """Takes a file piece by piece and gives its requests.

    Args:
        endpoint: what each line has to ask.
        max_lines: requests in one batch.
        max_line_bytes: of one line.
        shared: the model of which all lines share one budget; None: each has its own.
    """

    def __init__(self, endpoint: str, max_lines: int, max_line_bytes: int, shared: str | None = None) -> None:
        self.errors: list[LineError] = []
        self._endpoint = endpoint
        self._max_lines = max_lines
        self._max_line_bytes = max_line_bytes
        self._shared = shared
        self._rest = b""
        self._number = 0
        self._stopped = False
        self._custom_ids: set[str] = set()

    @property
    def gave_up(self) -> bool:
        """Whether so much is wrong that the rest is not looked at."""
        return self._stopped or len(self.errors) >= MAX_ERRORS

    def feed(self, data: bytes) -> list[Request]:
        """The requests of the lines that end in this piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = [request for line in lines if (request := self._read(line)) is not None]
        if len(self._rest) > self._max_line_bytes and not self.gave_up:
            # It is not waited for: its end may never come.
            self._read(self._rest)
            self._stopped = True
        return found

    def end(self) -> list[Request]:
        """The request of a last line that no newline ends; and the errors of the file as a whole."""
        request = self._read(self._rest)
        if self.gave_up:
            self.errors.append(LineError("not_read", f"Nothing behind line {self.errors[-1].line} was looked at."))
        elif not self._custom_ids and not self.errors:
            self.errors.append(LineError("empty_file", "The input file holds no request."))
        return [request] if request is not None else []

    def _read(self, line: bytes) -> Request | None:
        if self.gave_up:
            return None
        self._number += 1
        try:
            return self._request(line) if line.strip() else None
        except _Wrong as wrong:
            self.errors.append(LineError(wrong.code, wrong.message, wrong.param, self._number))
            return None

    def _request(self, line: bytes) -> Request:
        if len(line) > self._max_line_bytes:
            raise _Wrong("line_too_long", f"A line has at most {self._max_line_bytes} bytes.")
        try:
            asked = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise _Wrong("invalid_json_line", "This line is not valid JSON.") from None
        if not isinstance(asked, dict):
            raise _Wrong("invalid_json_line", "This line is not a JSON object.")
        for key in ("custom_id", "method", "url", "body"):
            if asked.get(key) is None:
                raise _Wrong("missing_required_parameter", f"{key} is missing.", key)
        custom_id = self._own_id(asked["custom_id"])
        if asked["method"] != "POST":
            raise _Wrong("invalid_method", f"method is 'POST', got {shown(asked['method'])}.", "method")
        if asked["url"] != self._endpoint:
            said = f"url is the batch's endpoint, {self._endpoint!r}, got {shown(asked['url'])}."
            raise _Wrong("url_mismatch", said, "url")
        return Request(self._number, custom_id, self._body(asked["body"]))

    def _own_id(self, custom_id: Any) -> str:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
            said = f"custom_id is a string of 1 to {MAX_CUSTOM_ID} characters, got {shown(custom_id)}."
            raise _Wrong("invalid_custom_id", said, "custom_id")
        if custom_id in self._custom_ids:
            said = f"custom_id {shown(custom_id)} is that of an earlier line too; each is its line's own."
            raise _Wrong("duplicate_custom_id", said, "custom_id")
        if len(self._custom_ids) >= self._max_lines:
            self._stopped = True
            raise _Wrong("too_many_tasks", f"The input file holds more than {self._max_lines} requests.")
        self._custom_ids.add(custom_id)
        return custom_id

    def _body(self, body: Any) -> bytes:
        if not isinstance(body, dict):
            raise _Wrong("invalid_body", "body is a JSON object.", "body")
        if body.get("stream"):
            raise _Wrong("unsupported_parameter", "body.stream: answers are not streamed in a batch.", "body.stream")
        if self._shared is not None and (field := own_compute(body, self._shared)):
            said = f"body.{field}: metadata.{BUDGET_KEY} has all lines answered by compute_optimal, within one budget."
            raise _Wrong("unsupported_parameter", said, f"body.{field}")
        return orjson.dumps(body)


class _Wrong(Exception):
    """What is wrong with a line."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        self.code = code
        self.message = message
        self.param = param
