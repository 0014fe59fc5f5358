from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer

from tts_server.engines.decoding.detokenizer import Detokenizer, SampleText

pytest.importorskip("transformers")

TOKENIZER: Any = tiny_tokenizer()
TEXT = "naïve 数学 🙂 is ¼ of the answer"


def in_bytes(text: str) -> list[int]:
    """One token a byte, as a model may choose that the tokenizer itself would not."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelled = bytes_to_unicode()
    ids: list[int] = TOKENIZER.convert_tokens_to_ids([spelled[byte] for byte in text.encode()])
    return ids


def spell(ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER, tuple(prompt))
    return [detokenizer.push(token) for token in ids]


def stopped(pieces: Sequence[str], stops: Sequence[str], include_stop: bool = False) -> tuple[list[str], str | None]:
    """What is released when the text grows by these ASCII pieces, a token a character."""
    text = SampleText(Detokenizer(TOKENIZER, ()), stops, include_stop)
    released = []
    for piece in pieces:
        for token in in_bytes(piece):
            released.append(text.push(token))
            if text.stop is not None:
                return released, text.stop
    return [*released, text.flush()], None


@given(st.text(alphabet="aé数🙂 \n.", max_size=20), st.text(alphabet="a é数🙂", max_size=8))
def test_characters_come_whole_and_nothing_is_lost(text: str, prompt: str) -> None:
    pieces = spell(in_bytes(text), in_bytes(prompt))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("cut", range(len(TEXT.encode()) + 1))
def test_a_text_cut_anywhere_continues_as_if_it_had_not_been(cut: int) -> None:
    ids = in_bytes(TEXT)
    assert "".join(spell(ids[:cut])) + "".join(spell(ids[cut:], ids[:cut])) == TEXT


def test_spaces_at_the_start_stay_and_special_tokens_have_no_text() -> None:
    ids = TOKENIZER.encode(" the answer")
    assert "".join(spell([1, *ids, 2, *ids], TOKENIZER.encode("what is"))) == " the answer the answer"


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    assert "".join(spell(in_bytes("ok 🙂")[:-1])) == "ok "


def test_bytes_that_are_no_character_show_as_such_once_something_follows() -> None:
    assert "".join(spell([*in_bytes("é")[:1], *in_bytes("a")])) == "\ufffda"


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    released, stop = stopped("one\n\n", ["\n\n"])
    assert (released, stop) == (["o", "n", "e", "", ""], "\n\n")
    assert stopped("a\nb", ["\n\n"]) == (["a", "", "\nb", ""], None)
    assert stopped("ab\n", ["\n\n"]) == (["a", "b", "", "\n"], None)


def test_a_stop_string_stays_if_asked() -> None:
    assert "".join(stopped("one\n\ntwo", ["\n\n"], include_stop=True)[0]) == "one\n\n"


def test_text_after_the_stop_string_in_its_token_is_cut() -> None:
    text = SampleText(Detokenizer(TOKENIZER, ()), ["ans"], True)
    assert [text.push(token) for token in TOKENIZER.encode("the answer")][-1].endswith("ans")
    assert (text.stop, text.flush()) == ("ans", "")


def test_stop_strings_count_only_once_they_may() -> None:
    text = SampleText(Detokenizer(TOKENIZER, ()), ["aa"], False)
    a = in_bytes("a")[0]
    assert [text.push(a, may_stop=False) for _ in range(3)] == ["a", "a", "a"]
    assert [text.push(a), text.stop, text.push(a), text.stop] == ["", None, "", "aa"]


@given(st.text(alphabet="ab", max_size=12), st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3))
def test_the_stop_string_that_is_complete_first_ends_the_text(text: str, stops: list[str]) -> None:
    released, stop = stopped(text, stops)
    ends = [(end, at, s) for s in stops if (at := text.find(s)) >= 0 for end in [at + len(s)]]
    assert stop == (min(ends)[2] if ends else None)
    assert "".join(released) == (text[: min(ends)[1]] if ends else text)
