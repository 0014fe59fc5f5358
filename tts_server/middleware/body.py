"""Bodies of requests: their type, their size, and what their client has compressed."""

import zlib
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tts_server.errors import APIError, InvalidRequest, RequestTooLarge, UnsupportedMediaType, shown
from tts_server.middleware.error_responses import refuse

UPLOADS = "/v1/files"
"""Where a body is a form with a file in it."""
PIECE_BYTES = 2**16
"""What is inflated at once: who counts a body's bytes sees them before there are more."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""What zlib calls its formats."""
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Body:
    """Refuses bodies that are too large, by their header or by their bytes, and those of another type than JSON.

    Uploads have a limit of their own, and are forms. Where there is no body there is no type of it. Bodies with
    `Content-Encoding: gzip` or `deflate` are inflated, and the limit holds for what comes out.
    """

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int) -> None:
        self._app = app
        self._limit = limit
        self._upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            receive = self._checked(scope, _inflating(scope, receive))
        except APIError as error:
            return await refuse(error, scope, receive, send)
        return await self._app(scope, receive, send)

    def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Receives the body and holds it to its limit.

        Raises:
            APIError: the headers say already that it cannot be taken.
        """
        if scope["method"] != "POST":
            return receive
        headers = Headers(scope=scope)
        upload = scope["path"] == UPLOADS
        wanted, limit = ("multipart/form-data", self._upload_limit) if upload else ("application/json", self._limit)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        declared = headers.get("content-length", "")
        # A page of another origin can send any other type without asking first, and no type at all.
        empty = "content-type" not in headers and "transfer-encoding" not in headers and declared in ("", "0")
        if media_type != wanted and not empty:
            raise InvalidRequest(f"Content-Type: {wanted} is needed, got {media_type[:80]!r}.")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return counted


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is over the limit of {limit} bytes.")


def _inflating(scope: Scope, receive: Receive) -> Receive:
    """Receives the body as it was before its client compressed it; the scope then says nothing of that any more.

    Raises:
        UnsupportedMediaType: it was compressed in another way than the standard library knows.
    """
    encoding = _encoding(Headers(scope=scope))
    if not encoding:
        return receive
    if encoding not in _FORMATS:
        raise UnsupportedMediaType(
            f"Content-Encoding: {shown(encoding)} is not understood; allowed: gzip, deflate, identity.",
            headers={"Accept-Encoding": "gzip, deflate"},
        )
    left_out = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name not in left_out]
    # How much it will be is not known before its end.
    scope["headers"] = [*kept, (b"transfer-encoding", b"chunked")]
    return _Inflater(encoding, receive)


def _encoding(headers: Headers) -> str:
    """The encoding of a body, or several with commas; empty where it is as it is."""
    named = [name.strip().lower() for name in ",".join(headers.getlist("content-encoding")).split(",")]
    return ", ".join(name for name in named if name not in ("", "identity"))


class _Inflater:
    """Receives a body and hands it on inflated."""

    def __init__(self, encoding: str, receive: Receive) -> None:
        self._encoding = encoding
        self._format = _FORMATS[encoding]
        self._stream = zlib.decompressobj(self._format)
        self._begun = self._ended = False
        self._receive = receive
        self._pieces: Iterator[bytes] = iter(())

    async def __call__(self) -> Message:
        while (piece := next(self._pieces, None)) is None:
            message = await self._receive()
            if self._ended or message["type"] != "http.request":
                return message
            self._ended = not message.get("more_body", False)
            self._pieces = self._inflated(message.get("body", b""))
        # Only the last piece is empty.
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        # A full piece may leave something in the stream although all of the data is read.
        while data or len(piece) == PIECE_BYTES:
            if self._stream.eof:
                if self._format != _GZIP:
                    raise self._broken("something follows its end")
                # A gzip body may be several, one behind the other.
                self._stream = zlib.decompressobj(_GZIP)
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                if self._begun or self._format != _ZLIB:
                    raise self._broken("it holds something else") from None
                # Some clients take `deflate` by its name and send no zlib header.
                self._format = _RAW
                self._stream = zlib.decompressobj(_RAW)
                continue
            self._begun = True
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if piece:
                yield piece
        if self._ended:
            if self._begun and not self._stream.eof:
                raise self._broken("it breaks off")
            yield b""

    def _broken(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"The body is not what Content-Encoding: {self._encoding} says: {why}.")
