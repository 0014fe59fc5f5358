"""Thoughts and answers: split alike however the text is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.answers import extract
from strategies.answers.think_tags import Parts, Splitter, answer_tokens, overlap, split
from strategies.core.contracts import Chunk


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("4", "", "4"),
        ("\n\n 4 \n", "", "\n\n 4 \n"),
        ("<think>2 + 2\n\nis 4</think>\n\n4.", "2 + 2\n\nis 4", "4."),
        ("\n<think>\n\nhm \n</think>4", "hm", "4"),
        ("<think>\n\n</think>\n\n4", "", "4"),
        ("<think>2 + 2", "2 + 2", ""),
        ("<think>a < b </thin", "a < b </thin", ""),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<thinking>4", "", "<thinking>4"),
        ("<thi", "", "<thi"),
        ("4 <think>no</think>", "", "4 <think>no</think>"),
        ("", "", ""),
    ],
)
def test_a_text_is_split_at_the_thought_that_it_begins_with(text: str, thought: str, answer: str) -> None:
    assert split(text) == Parts(thought, answer)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "</", " ", "\n\n", "a", "<b>"]), max_size=12)
)
def test_a_stream_says_what_the_whole_says_wherever_it_is_cut(pieces: list[str]) -> None:
    splitter = Splitter()
    parts = [*map(splitter.push, pieces), splitter.end()]
    assert Parts("".join(p.thought for p in parts), "".join(p.answer for p in parts)) == split("".join(pieces))


def test_nothing_of_a_tag_goes_out_before_it_is_certain() -> None:
    splitter = Splitter()
    assert splitter.push(" <thi") == Parts()
    assert splitter.push("nk>hm ") == Parts("hm")
    assert splitter.thinking
    assert splitter.push("</thi") == Parts()
    assert splitter.push("ng") == Parts(" </thing")
    assert splitter.push("</think>\n") == Parts()
    assert not splitter.thinking
    assert splitter.push("\n4") == Parts(answer="4")


def test_tokens_of_the_thought_are_not_the_answer_s() -> None:
    texts = ["<think>", "a", "b", "</think>", "\n\n", "4", ""]
    assert answer_tokens([Chunk(0, text=text, completion_tokens=1) for text in texts]) == 3
    texts = ["<", "think", ">a", "</think>4"]
    assert answer_tokens([Chunk(0, text=text, completion_tokens=1) for text in texts]) == 1
    assert answer_tokens([Chunk(0, text="<", completion_tokens=1)]) == 1
    assert answer_tokens([Chunk(0, text=text, completion_tokens=1) for text in ("<think>", "a", "")]) == 0
    assert answer_tokens([Chunk(0, text=text, completion_tokens=1) for text in ("a", "", "b")]) == 3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>So \\boxed{3}? No.</think>\\boxed{4}", "4"),
        ("<think>So \\boxed{3}.", None),
        ("<think>the answer is 3\n", None),
        ("a \\boxed{3}</think>\\boxed{4}", "4"),
    ],
)
def test_a_thought_is_no_answer_closed_or_not(text: str, answer: str | None) -> None:
    assert extract(text) == answer
    assert extract(text, truncated=True) == answer


def test_an_overlap_is_the_longest_beginning_of_a_tag() -> None:
    assert [overlap(text, "</think>") for text in ("a", "a<", "a</t", "a</think>", "<<", "")] == [0, 1, 3, 0, 1, 0]
