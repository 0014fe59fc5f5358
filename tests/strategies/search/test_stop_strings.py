"""Stop strings in a text that grows part by part."""

from hypothesis import given
from hypothesis import strategies as st

from strategies.core.contracts import Chunk, Sample
from strategies.search.stop_strings import Border, first_stop, length_of, reach, tail, without_end

texts = st.text(alphabet="ab\n", max_size=30)
stop_lists = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), min_size=1, max_size=3)
parts = st.lists(st.text(alphabet="ab\n", max_size=6), max_size=8)


def grown(said: list[str]) -> Sample:
    return Sample([Chunk(0, text, completion_tokens=1) for text in said])


@given(texts, stop_lists, st.integers(0, 30))
def test_the_first_stop_is_the_one_that_a_growing_text_shows_first(text: str, stops: list[str], begin: int) -> None:
    ends = range(begin + 1, len(text) + 1)
    shown = next(((end, s) for end in ends for s in sorted(stops, key=len)[::-1] if text[:end].endswith(s)), None)
    found = first_stop(text, stops, begin)
    assert (found and (found.end, found.text)) == shown
    assert found is None or text[found.start : found.end] == found.text


@given(parts, stop_lists)
def test_a_text_seen_part_by_part_ends_where_the_whole_does(said: list[str], stops: list[str]) -> None:
    whole = first_stop("".join(said), stops)
    for i in range(len(said)):
        before = tail([grown(said[:i])], reach(stops))
        found = first_stop(before + said[i], stops, len(before))
        if found:
            begin = len("".join(said[:i])) - len(before)
            assert whole == (begin + found.end, begin + found.start, found.text)
            return
    assert whole is None


@given(parts, st.integers(0, 60))
def test_what_is_cut_off_and_what_is_left_are_the_text(said: list[str], length: int) -> None:
    text, sample = "".join(said), grown(said)
    kept = without_end(sample, length)
    assert kept.text == text[: max(0, len(text) - length)]
    assert kept.completion_tokens == sample.completion_tokens
    assert tail([sample], length) == (text[-length:] if length else "")
    assert length_of(sample, len(said) // 2) == len("".join(said[: len(said) // 2]))


def test_a_border_ends_the_parts_in_which_a_stop_goes_on() -> None:
    border = Border("alpha STO", ("STOP!", "x"))
    assert not border.ends(Chunk(0, "P"))
    assert not border.ends(Chunk(1, "Px"))
    assert border.ends(Chunk(0, "! and more"))
    assert not any(border.ends(Chunk(1, "!")) for _ in range(3))
    assert border.ended == {0}


def test_a_border_that_no_stop_begins_at_watches_nothing() -> None:
    border = Border("alpha", ("STOP!",))
    assert not border.ends(Chunk(0, "STOP!"))
    assert not border.ended
