"""One HTTP/1.1 connection of a client, as uvicorn runs it, without what real clients stumble over."""

import logging

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tts_server.errors import APIError, HeadersTooLarge, InvalidRequest

__all__ = ["Http1"]

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 2**18
"""Of a request's first line and headers, and of the trailers behind a body."""
_OFFER = (b"upgrade", b"http2-settings")
"""Headers that offer another protocol, and the tokens of `connection` that go with them."""
_TLS = b"\x16\x03"
"""How every connection begins that speaks TLS."""


class Http1(HttpToolsProtocol):
    """Answers a request that offers another protocol in HTTP/1.1, as RFC 9110 (7.8) allows, and keeps its body.

    Java's HttpClient and `curl --http2` offer h2c with every request that they send over plain HTTP. The parser takes
    such an offer for accepted and stops behind the headers. So the head is parsed a second time, without the offer.

    Refusals of what is no HTTP request are OpenAI's error object too, and heads are bounded.
    """

    _head_bytes = 0
    _first_line = b""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            # The parser that took the offer reads no further where the client wants the connection closed.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.data_received(self._without_offer() + data[offer.args[0] :])
        except httptools.HttpParserCallbackError:
            self._refuse(_not_http("its target is not understood"), data)
        except httptools.HttpParserError as error:
            self._refuse(_not_http(str(error)), data)
        else:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadersTooLarge(f"The headers are over the limit of {MAX_HEAD_BYTES} bytes."), data)

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            return
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise ValueError("this server is no proxy")
        self._first_line = b"%s %s HTTP/%s\r\n" % (method, self.url, version.encode())

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _without_offer(self) -> bytes:
        """The head that was just parsed, as its client sends it where it offers nothing."""
        lines = [self._first_line]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                kept = [token for token in tokens if token.lower() not in _OFFER]
                lines.append(b"connection: %s\r\n" % b", ".join(kept))
            elif name not in _OFFER:
                lines.append(b"%s: %s\r\n" % (name, value))
        return b"".join([*lines, b"\r\n"])

    def _refuse(self, error: APIError, data: bytes) -> None:
        hint = " It speaks TLS, and the URL of this server begins with http://." if data.startswith(_TLS) else ""
        log.warning("%s was refused: %s%s", self.client[0] if self.client else "a client", error.message, hint)
        waits = self.cycle is not None and not self.cycle.response_complete
        if waits and not self.cycle.more_body and not isinstance(error, HeadersTooLarge):
            # What came before this is answered; only what is behind it is lost.
            self.cycle.keep_alive = False
            return
        # A second answer would garble the one that is under way.
        if not (self.pipeline or (waits and self.cycle.response_started)):
            body = orjson.dumps(error.body)
            headers = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.status] + headers + body)
        self.transport.close()


def _not_http(why: str) -> InvalidRequest:
    return InvalidRequest(f"This is not an HTTP/1.1 request: {why}.")
