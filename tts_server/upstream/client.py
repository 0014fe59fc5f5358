"""The HTTP side of an OpenAI-compatible upstream: connections, retries, errors, server-sent events.

Knows nothing of sampling. The URL and the API key come from the operator, proxies and keys of the environment are not
looked at, and redirects are not followed: nothing a client sends can decide where the key goes.
"""

import asyncio
import random
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import httpx
import orjson

from tts_server.errors import APIError, EngineUnavailable, UpstreamError
from tts_server.trace_place import trace_place
from tts_server.upstream.body import DONE_DATA, MAX_LINE, drain, events, whole
from tts_server.upstream.connection import Lane
from tts_server.upstream.errors import NoSuchPath, Unreached, broken_off, refusal, retry_after

DONE: Mapping[str, Any] = {}
"""The last frame of a stream whose upstream says that it is whole."""
MAX_RETRY_WAIT_S = 30.0
"""An upstream that wants a longer pause is not asked again."""
IDLE_S = 60.0
"""An unused connection is closed after this."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Again(Exception):
    """A failure before any answer, after which the same request may be sent again."""

    def __init__(self, error: APIError, wait_s: float | None = None) -> None:
        self.error = error
        self.wait_s = wait_s


class Upstream:
    """One upstream and its connections, kept until `close`."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 600.0,
        retries: int = 2,
        backoff_s: float = 0.5,
    ) -> None:
        """Takes the URL that paths are appended to.

        Raises:
            ValueError: it is not an http or https URL.
        """
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"The upstream's URL is none: {error}.") from None
        if base.scheme not in ("http", "https") or not base.host or (base.port or 1) not in range(1, 65536):
            raise ValueError(f"The upstream's URL must be http:// or https:// and a host, not {url!r}.")
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("The upstream's API key holds what no header can carry.")
        self.healthy = True
        """False from a failure to connect until the next answer."""
        self.failed: Counter[str] = Counter()
        """Answers that failed or did not come, by kind: `connect`, `timeout`, `broken` or their HTTP status."""
        self.retried = 0
        """Requests that were sent again."""
        self.origin = f"{base.scheme}://{base.netloc.decode()}"
        self._lines = (
            f"host: {base.netloc.decode()}\r\naccept: application/json, text/event-stream\r\n"
            "accept-encoding: identity\r\ncontent-type: application/json\r\n"
            + (f"authorization: Bearer {api_key}\r\n" if api_key else "")
        )
        self._key = api_key
        self._base = base
        self._path = base.raw_path.decode("ascii").rstrip("/")
        self.url = self.origin + self._path
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._retries = retries
        self._backoff_s = backoff_s
        # Reading the certificates takes time, and plain HTTP needs none.
        secure = base.scheme == "https"
        self._ssl = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._idle: deque[tuple[float, Lane]] = deque()
        self._busy: set[Lane] = set()
        self._closed = False

    async def get(self, path: str, *, retries: int | None = None) -> Any:
        """The JSON under a path.

        Raises:
            APIError: the upstream cannot be reached, or refuses, or answers nonsense.
        """
        return await self._json("GET", path, b"", retries)

    async def text(self, path: str, limit: int = MAX_LINE) -> str:
        """What stands under a path, asked for once.

        Raises:
            APIError: as for `get`; also if it is longer than so many bytes.
        """
        return (await self._whole("GET", path, b"", 0, limit)).decode(errors="replace")

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a body.

        Raises:
            APIError: as for `get`.
        """
        return await self._json("POST", path, _dump(body), None)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """The JSON objects of the stream that answers a body, then `DONE`. Closing the iterator closes the connection.

        One object that is no stream is taken for a stream of one.

        Raises:
            APIError: as for `get`; also an error that the upstream reports, or a cut, in the middle of its stream.
        """
        lane = await self._open("POST", path, _dump(body), None)
        try:
            if lane.headers.get("content-type", "").startswith("application/json"):
                if frame := self._only(await whole(lane)):
                    yield frame
                yield DONE
                return
            async with aclosing(lane.pieces()) as pieces, aclosing(events(pieces)) as found:
                async for data, value in found:
                    if data == DONE_DATA:
                        await drain(pieces)
                        yield DONE
                        break
                    if frame := self._frame(data, value):
                        yield frame
        except httpx.TransportError as error:
            raise self._cut(error) from error
        finally:
            self._release(lane)

    async def trim(self) -> None:
        """Closes the connections that nothing has used for a while."""
        oldest = time.monotonic() - IDLE_S
        while self._idle and self._idle[0][0] < oldest:
            self._idle.popleft()[1].close()

    async def close(self) -> None:
        """Closes every connection; calls under way fail."""
        self._closed = True
        self.healthy = False
        for lane in [*self._busy, *(lane for _, lane in self._idle)]:
            lane.close()
        self._idle.clear()

    async def _json(self, method: str, path: str, content: bytes, retries: int | None) -> Any:
        body = await self._whole(method, path, content, retries)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UpstreamError(f"The upstream's answer to {path} is not JSON.") from None

    async def _whole(
        self, method: str, path: str, content: bytes, retries: int | None, limit: int | None = None
    ) -> bytes:
        lane = await self._open(method, path, content, retries)
        try:
            return await whole(lane, limit)
        except httpx.TransportError as error:
            raise self._cut(error) from error
        finally:
            self._release(lane)

    async def _open(self, method: str, path: str, content: bytes, retries: int | None) -> Lane:
        """Sends until there is an answer with status 200, or no hope of one."""
        target = self._path + path
        place = trace_place.get()
        lines = self._lines + (place.header_lines if place else "")
        head = f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n"
        for left in range(self._retries if retries is None else retries, -1, -1):
            try:
                return await self._send(head.encode("latin-1") + content)
            except _Again as failure:
                wait = self._backoff(left) if failure.wait_s is None else failure.wait_s
                if not left or wait > MAX_RETRY_WAIT_S:
                    raise failure.error from failure.__cause__
                self.retried += 1
                await asyncio.sleep(wait)
        raise ValueError("retries must not be negative")

    def _backoff(self, left: int) -> float:
        return self._backoff_s * 2.0 ** (self._retries - left) * random.uniform(0.75, 1.25)

    async def _send(self, request: bytes) -> Lane:
        lane = self._take()
        try:
            await lane.ask(request)
        except BaseException as error:
            self._busy.discard(lane)
            lane.close()
            if isinstance(error, httpx.TransportError):
                raise self._unanswered(error) from error
            raise
        self.healthy = True
        if lane.status == 200:
            return lane
        try:
            body = await whole(lane)
        except httpx.TransportError as error:
            raise _Again(UpstreamError("The upstream cut its error short.")) from error
        finally:
            self._release(lane)
        failure = refusal(lane.status, lane.headers, body, self._key)
        if failure.status >= 500 and not isinstance(failure, NoSuchPath):
            self.failed[str(lane.status)] += 1
        raise _Again(failure, retry_after(lane.headers)) if lane.status in _RETRIED else failure

    def _take(self) -> Lane:
        if self._closed:
            raise EngineUnavailable("The connection to the upstream is closed.")
        if self._idle:
            lane = self._idle.pop()[1]
        else:
            lane = Lane(self._base, self._ssl, self._connect_timeout_s, self._read_timeout_s)
        self._busy.add(lane)
        return lane

    def _release(self, lane: Lane) -> None:
        """Gives the connection back; one whose answer was not read to the end is closed."""
        lane.finish()
        self._busy.discard(lane)
        if not self._closed:
            self._idle.append((time.monotonic(), lane))

    def _unanswered(self, error: httpx.TransportError) -> Exception:
        kind = type(error).__name__
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            self.healthy = False
            self.failed["connect"] += 1
            return _Again(Unreached(f"The upstream cannot be reached ({kind})."))
        if isinstance(error, httpx.TimeoutException):
            # It may still be at work: asking again would double that.
            self.failed["timeout"] += 1
            return UpstreamError(f"The upstream did not answer in time ({kind}).")
        self.failed["broken"] += 1
        return _Again(EngineUnavailable(f"The upstream closed the connection without an answer ({kind})."))

    def _cut(self, error: httpx.TransportError) -> UpstreamError:
        if isinstance(error, httpx.TimeoutException):
            self.failed["timeout"] += 1
            return UpstreamError("The upstream stopped sending in the middle of its answer.")
        self.failed["broken"] += 1
        return UpstreamError(f"The upstream cut its answer short ({type(error).__name__}).")

    def _only(self, data: bytes) -> dict[str, Any] | None:
        """The object that is the whole answer."""
        try:
            return self._frame(data, orjson.loads(data))
        except orjson.JSONDecodeError:
            raise UpstreamError("The upstream's answer is not JSON.") from None

    def _frame(self, data: bytes, frame: Any) -> dict[str, Any] | None:
        """An object of the stream; None for `null`, which some upstreams send to keep the connection."""
        if frame is None:
            return None
        if not isinstance(frame, dict):
            raise UpstreamError("The upstream's stream holds something that is not a JSON object.")
        if _is_error(frame):
            self.failed["broken"] += 1
            raise broken_off(data, self._key)
        return frame


def _is_error(frame: Mapping[str, Any]) -> bool:
    """Whether a frame reports a failure: as OpenAI does, or as an object that is itself the error."""
    return bool(frame.get("error")) or "error" in (frame.get("object"), frame.get("type"))


def _dump(body: Mapping[str, Any]) -> bytes:
    return orjson.dumps(body, default=dict, option=orjson.OPT_NON_STR_KEYS)
