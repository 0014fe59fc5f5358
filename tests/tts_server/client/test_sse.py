"""Server-sent events, however their bytes are cut."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_server.client.errors import UnexpectedAnswer
from tts_server.client.sse import Events

ENDS = ("\n", "\r\n", "\r")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A stream, and the data of the events it holds."""
    said, expected = draw(st.sampled_from(["", "\ufeff"])), []
    for _ in range(draw(st.integers(0, 5))):
        end = draw(st.sampled_from(ENDS))
        data = draw(st.lists(TEXT.filter(lambda text: not text.startswith(" ")), max_size=3))
        for line in data:
            noise = draw(st.sampled_from(["", ": keep-alive", "event: x", "id: 1", "retry", "datax: no", ":"]))
            said += noise + end if noise else ""
            said += draw(st.sampled_from(["data:", "data: "])) + line + end
        said += end
        if "\n".join(data):
            expected.append("\n".join(data))
    return said.encode(), expected


def cut(stream: bytes, places: list[int]) -> Iterator[bytes]:
    at = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return (stream[a:b] for a, b in pairwise(at))


@settings(deadline=None)
@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_same_events_come_however_the_bytes_are_cut(stream: tuple[bytes, list[str]], places: list[int]) -> None:
    raw, expected = stream
    events = Events()
    assert [data for piece in cut(raw, places) for data in events.feed(piece)] == expected
    events = Events()
    assert [data for byte in raw for data in events.feed(bytes([byte]))] == expected


def test_an_event_without_its_end_does_not_come() -> None:
    assert list(Events().feed(b"data: 1\n\ndata: 2\n")) == ["1"]


def test_a_second_line_feed_after_a_carriage_return_is_an_empty_line() -> None:
    events = Events()
    assert [*events.feed(b"data: 1\r"), *events.feed(b"\n"), *events.feed(b"\n")] == ["1"]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: 1234567890\n" * 10, b": " + b"x" * 100])
def test_an_event_that_is_too_large_is_refused_before_it_is_whole(stream: bytes) -> None:
    events = Events(limit=64)

    def read() -> list[str]:
        return [data for byte in stream for data in events.feed(bytes([byte]))]

    with pytest.raises(UnexpectedAnswer, match="over 64 bytes"):
        read()


def test_many_small_events_are_not_one_large_one() -> None:
    assert len(list(Events(limit=64).feed(b": beat\n\ndata: 1\n\n" * 1000))) == 1000


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match="UTF-8"):
        list(Events().feed(b"data: \xff\n\n"))
