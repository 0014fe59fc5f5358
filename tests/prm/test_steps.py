"""Text to steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm import SEPARATOR, split_steps

step = st.text(min_size=1).map(str.strip).filter(lambda text: len(split_steps(text)) == 1)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        (" \n\n \n", ()),
        ("one", ("one",)),
        ("one\ntwo", ("one\ntwo",)),
        ("one\n\ntwo\n\n", ("one", "two")),
        ("\n\n one \n\n\n\n two", ("one", "two")),
        ("one\r\n\r\ntwo\r\nthree", ("one", "two\r\nthree")),
        ("one\n  \ntwo\n\t\r\n\nthree", ("one", "two", "three")),
        ("one \r\n   two", ("one \r\n   two",)),
    ],
)
def test_steps_are_what_stands_between_separators(text: str, steps: tuple[str, ...]) -> None:
    assert split_steps(text) == steps


def test_the_separator_can_be_another() -> None:
    assert split_steps("a ки b\n\nc ки", "ки") == ("a", "b\n\nc")


@given(st.lists(step))
def test_joined_steps_are_split_again(steps: list[str]) -> None:
    assert split_steps(SEPARATOR.join(steps)) == tuple(steps)
    assert split_steps(SEPARATOR.join(steps) + SEPARATOR) == tuple(steps)


@given(st.text(alphabet="a \r\n"))
def test_no_step_is_blank_and_no_word_is_lost(text: str) -> None:
    steps = split_steps(text)
    assert all(step.strip() for step in steps)
    assert "".join("".join(steps).split()) == "".join(text.split())
