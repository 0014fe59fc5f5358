import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.core.contracts import Chunk, Prompt, Refused, Sample, Task, TokenIds, text_of
from strategies.search.steered_chains import Chain, Text, resumable, text_ids
from tts_server.engines.fake import FakeEngine, decode, token_id


class Bytes(FakeEngine):
    """One token a byte, in a template that trims a turn and closes it."""

    async def encode(self, prompt: Prompt) -> TokenIds:
        return tuple("".join(f"<{text_of(m).strip()}>" for m in prompt.messages).encode())


class Runs(FakeEngine):
    """One token a run of letters, of white space, or of anything else, as byte-pair tokenizers cut."""

    async def encode(self, prompt: Prompt) -> TokenIds:
        text = "".join(f"<{text_of(m)}>" for m in prompt.messages)
        return tuple(token_id(run) for run in re.findall(r"[a-z]+|[0-9]|\s+|[^a-z0-9\s]+", text, re.IGNORECASE))


class Merging(FakeEngine):
    """All of a turn is one token."""

    async def encode(self, prompt: Prompt) -> TokenIds:
        return (hash(prompt.messages[0]["content"]),)


@pytest.mark.parametrize(
    "text", ["Wait", " Wait", "\n\nFinal Answer:", "</think>", "</think>\n\n", "x", "x\n", "\\boxed{"]
)
def test_the_tokens_of_a_text_spell_it(text: str) -> None:
    assert decode(asyncio.run(text_ids(FakeEngine(), text))) == text
    assert bytes(asyncio.run(text_ids(Bytes(), text))).decode() == text


@pytest.mark.parametrize("text", ["Wait", "\nWait", "\n\nWait, so", " Wait", "</think>\n\n", "Wait\n", "\n"])
def test_a_text_is_not_mixed_up_with_what_stands_beside_it(text: str) -> None:
    assert decode(asyncio.run(text_ids(Runs(), text))) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_text_is_found_where_nothing_merges(text: str) -> None:
    assert bytes(asyncio.run(text_ids(Bytes(), text))).decode() == text


def test_a_text_that_always_merges_is_refused() -> None:
    with pytest.raises(Refused, match="no tokens of its own for 'Wait'"):
        asyncio.run(text_ids(Merging(), "Wait"))


def test_an_engine_without_token_ids_is_refused() -> None:
    with pytest.raises(Refused):
        asyncio.run(text_ids(FakeEngine(continues=False), "Wait"))


@pytest.mark.parametrize(
    ("chunk", "ids"),
    [
        (Chunk(0, "a b", (1, 2), 3, finish_reason="eos"), (1, 2)),
        (Chunk(0, "a b", (1, 2, 99), 3, finish_reason="eos"), (1, 2)),
        (Chunk(0, "a b", (1, 2), 2, finish_reason="length"), (1, 2)),
    ],
)
def test_an_end_of_sequence_is_not_continued(chunk: Chunk, ids: TokenIds) -> None:
    assert resumable(Sample([chunk])) == ids


@pytest.mark.parametrize(("ids", "left"), [((1, 2, 8, 9), (1, 2)), ((1, 2), (1, 2)), ((8, 9, 1), (8, 9, 1))])
def test_a_stop_strings_tokens_are_taken_off_where_they_were_told(ids: TokenIds, left: TokenIds) -> None:
    chain = Chain(Task(Prompt(token_ids=(1,))), FakeEngine(), 0, Sample(), ids)
    chain.cut(Text("</think>", (8, 9)))
    assert chain.ids == left
