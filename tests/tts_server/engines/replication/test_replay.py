import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.core.contracts import Chunk, Prompt, Sampling, TokenIds
from tts_server.engines.replication.replay import Branch, Seam, can_continue, continued, spelled

PROMPT = Prompt(token_ids=tuple(map(ord, "What is it?")))


async def decode(ids: TokenIds) -> str:
    return "".join(map(chr, ids))


def branch_of(said: str, sent: str, index: int = 0) -> Branch:
    branch = Branch(index)
    branch.note(Chunk(index, text=sent, token_ids=tuple(map(ord, said)), completion_tokens=len(said)))
    return branch


def joined(said: str, sent: str, rest: list[str], sampling: Sampling) -> tuple[str, str | None]:
    """The whole text of a sample that a lost upstream had sent in part, and the stop string it ended at."""
    seam = Seam(said, len(sent), sampling)
    text = sent
    for number, piece in enumerate(rest):
        chunk = seam.join(Chunk(0, text=piece, finish_reason="eos" if number == len(rest) - 1 else None))
        text += chunk.text
        if seam.ended:
            assert chunk.finish_reason == "stop"
            return text, chunk.stop
    return text, None


def test_a_rest_is_asked_for_what_is_left() -> None:
    sampling = Sampling(max_tokens=10, min_tokens=2, temperature=0.5, stop=("x",), prompt_logprobs=1)
    rest = continued(sampling, branch_of("abc", "abc"))
    assert rest == replace(sampling, max_tokens=7, min_tokens=0, prompt_logprobs=None)
    assert continued(Sampling(), branch_of("abc", "abc")) == Sampling()


def test_the_seed_of_a_rest_is_its_own_and_repeats() -> None:
    sampling = Sampling(seed=7)
    seeds = [continued(sampling, branch_of(said, said, index)).seed for said in ("a", "ab") for index in (0, 1)]
    assert len({7, *seeds}) == 5
    assert continued(sampling, branch_of("a", "a")).seed == seeds[0]


@pytest.mark.parametrize(
    ("sampling", "can"),
    [
        (Sampling(temperature=1.0, seed=1, stop=("x",), repetition_penalty=1.1, logprobs=2), True),
        (Sampling(structured={"type": "json_object"}), False),
        (Sampling(presence_penalty=0.1), False),
        (Sampling(frequency_penalty=-0.1), False),
    ],
)
def test_what_means_something_else_in_the_middle_does_not_go_on(sampling: Sampling, can: bool) -> None:
    assert can_continue(sampling) is can


def test_text_that_was_kept_back_is_found_again() -> None:
    assert asyncio.run(spelled(PROMPT, branch_of("So it is.", "So it"), decode)) == "So it is."


@pytest.mark.parametrize(
    ("said", "sent"), [("Half \N{REPLACEMENT CHARACTER}", "Half "), ("Something else", "Some other thing")]
)
def test_text_that_is_not_sure_is_not_told(said: str, sent: str) -> None:
    assert asyncio.run(spelled(PROMPT, branch_of(said, sent), decode)) is None


def test_without_stop_strings_the_rest_is_appended_at_once() -> None:
    seam = Seam("Half a ch", 4, Sampling())
    assert seam.join(Chunk(0, text="ar")).text == " a char"
    assert seam.join(Chunk(0, text="acter")).text == "acter"


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("rest", [["\nIgnored"], ["\n", "Ignored"]])
def test_a_stop_string_across_the_seam_ends_the_sample(include: bool, rest: list[str]) -> None:
    sampling = Sampling(stop=("\n\n",), include_stop=include)
    # An upstream keeps back what may be the stop string's begin, unless the string is part of the text.
    text = joined("A step.\n", "A step.\n" if include else "A step.", rest, sampling)
    assert text == ("A step.\n\n" if include else "A step.", "\n\n")


def test_what_only_began_like_a_stop_string_is_text() -> None:
    sampling = Sampling(stop=("\n\nUser",))
    assert joined("A step.\n", "A", ["\nU", "s", "age", " it is"], sampling) == ("A step.\n\nUsage it is", None)
    assert joined("A step.\n", "A", ["\nUs"], sampling) == ("A step.\n\nUs", None)


def test_a_stop_string_behind_the_seam_is_the_upstreams_to_find() -> None:
    assert joined("ab", "ab", ["c--", "d"], Sampling(stop=("--",))) == ("abc--d", None)


@given(
    st.text("ab", max_size=8),
    st.text("ab", min_size=1, max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_a_seam_does_what_an_upstream_without_one_would(
    said: str, rest: str, stops: list[str], data: st.DataObject
) -> None:
    if any(stop in said or stop in rest for stop in stops):
        return
    kept = max(map(len, stops)) - 1
    sent = said[: max(0, len(said) - kept)]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(rest) - 1)), max_size=3)))
    pieces = [rest[a:b] for a, b in zip([0, *cuts], [*cuts, len(rest)], strict=True) if a < b]
    whole = said + rest
    found = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    text, stop = joined(said, sent, pieces, Sampling(stop=tuple(stops)))
    assert text == (whole[: min(found)[1]] if found else whole)
    assert (stop is not None) == bool(found)
