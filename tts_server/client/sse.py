"""Server-sent events: bytes, however they are cut, to the data of each event. Pure; knows no HTTP and no JSON."""

import re
from collections.abc import Iterator

from tts_server.client.errors import UnexpectedAnswer

MAX_EVENT_BYTES = 64 * 2**20
"""A single event that is larger comes from no server of this kind."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Events:
    """Reads a stream as its bytes come.

    >>> events = Events()
    >>> [*events.feed(b"data: 1\\r\\n\\r"), *events.feed(b"\\n: beat\\n\\ndata: 2\\ndata: 3\\n\\nda")]
    ['1', '2\\n3']
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        """The line that has no end yet."""
        self._seen = 0
        """How much of it is known to hold no end."""
        self._after_cr = False
        """Whether a line feed that comes next belongs to the last line's end."""
        self._first = True
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of the events that this piece completes.

        Raises:
            UnexpectedAnswer: an event is too large, or its data is not UTF-8.
        """
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        self._rest += piece
        begin = 0
        while end := _LINE_END.search(self._rest, max(begin, self._seen)):
            self._after_cr = end[0] == b"\r" and end.end() == len(self._rest)
            line = bytes(self._rest[begin : end.start()])
            begin = end.end()
            if data := self._line(line):
                yield data
        del self._rest[:begin]
        self._seen = len(self._rest)
        self._check(self._seen)

    def _line(self, line: bytes) -> str | None:
        if self._first:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._first = False
        if not line:
            return self._event()
        name, _, value = line.partition(b":")
        # A line that begins with a colon is a comment; of the other fields none says anything here.
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            self._check(0)
        return None

    def _event(self) -> str | None:
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode() or None
        except UnicodeDecodeError:
            raise UnexpectedAnswer("The server's stream holds an event that is not UTF-8.") from None

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise UnexpectedAnswer(f"The server's stream holds an event of over {self._limit} bytes.")
