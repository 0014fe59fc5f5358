import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.core.contracts import Chunk, Engine, Prompt, Refused, Sample, Sampling, TokenIds
from tts_server.engines.fake import (
    FakeEngine,
    FakeReply,
    FakeRequest,
    cut_at_stop,
    decode,
    encode,
    pieces,
    render,
    token_id,
)
from tts_server.errors import ContextTooLong, EngineUnavailable
from tts_server.forms.json_schema import Schema

CHAT = Prompt(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}))
PLAIN = Sampling()


async def chunks_of(engine: Engine, prompt: Prompt = CHAT, sampling: Sampling = PLAIN, n: int = 1) -> list[Chunk]:
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        return [chunk async for chunk in chunks]


def gathered(chunks: Sequence[Chunk]) -> list[Sample]:
    indexes = sorted({chunk.index for chunk in chunks})
    return [Sample([chunk for chunk in chunks if chunk.index == index]) for index in indexes]


def samples_of(engine: Engine, prompt: Prompt = CHAT, sampling: Sampling = PLAIN, n: int = 1) -> list[Sample]:
    return gathered(asyncio.run(chunks_of(engine, prompt, sampling, n)))


def saying(text: str | FakeReply) -> FakeEngine:
    return FakeEngine(lambda request: text)


@given(st.text())
def test_any_text_is_tokens_and_back(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert decode(encode(text)) == text
    assert all(len(piece.encode()) <= 6 for piece in pieces(text))


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_continued_text_is_the_joined_text(first: str, second: str) -> None:
    assert decode(encode(first) + encode(second)) == first + second


def test_the_end_of_sequence_is_a_token_without_text_and_id() -> None:
    (sample,) = samples_of(saying("one two three"))
    assert sample.text == "one two three"
    assert sample.token_ids == encode("one two three")
    assert sample.completion_tokens == len(sample.token_ids) + 1
    assert sample.finish_reason == "eos"


def test_an_empty_text_is_one_chunk() -> None:
    assert asyncio.run(chunks_of(saying(""))) == [
        Chunk(0, completion_tokens=1, prompt_tokens=len(encode(render(CHAT))), finish_reason="eos")
    ]


@pytest.mark.parametrize(
    ("limit", "text", "reason"), [(1, "one", "length"), (2, "one two", "length"), (3, "one two", "eos")]
)
def test_the_token_limit_counts_the_end_of_sequence(limit: int, text: str, reason: str) -> None:
    (sample,) = samples_of(saying("one two"), sampling=Sampling(max_tokens=limit))
    assert (sample.text, sample.finish_reason) == (text, reason)
    assert sample.completion_tokens == limit


def test_the_context_ends_a_sample() -> None:
    engine = FakeEngine(lambda request: "word " * 50, max_model_len=len(encode(render(CHAT))) + 4)
    (sample,) = samples_of(engine)
    assert (sample.completion_tokens, sample.finish_reason) == (4, "length")


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    tokens = len(encode(render(CHAT)))
    engine = FakeEngine(max_model_len=tokens)
    with pytest.raises(ContextTooLong, match=f"{tokens} tokens"):
        samples_of(engine)
    assert (engine.generated, engine.live) == (0, 0)


@pytest.mark.parametrize(
    ("stops", "include", "text", "stop"),
    [
        (("two",), False, "one ", "two"),
        (("two",), True, "one two", "two"),
        (("three", "ne t"), False, "o", "ne t"),
        (("four",), False, "one two three", None),
        ((), False, "one two three", None),
    ],
)
def test_a_stop_string_cuts(stops: tuple[str, ...], include: bool, text: str, stop: str | None) -> None:
    sampling = Sampling(stop=stops, include_stop=include)
    assert cut_at_stop("one two three", sampling) == (text, stop)
    (sample,) = samples_of(saying("one two three"), sampling=sampling)
    assert sample.text == text
    assert (sample.finish_reason, sample.chunks[-1].stop) == (("stop", stop) if stop else ("eos", None))


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ({}, "2 + 2?\n<assistant>"),
        ({"add_generation_prompt": False}, "2 + 2?\n"),
        ({"continue_final_message": True}, "2 + 2?"),
    ],
)
def test_the_chat_template(template: dict[str, bool], end: str) -> None:
    prompt = Prompt(CHAT.messages, template=template)
    assert render(prompt) == f"<system>Be brief.\n<user>{end}"
    assert asyncio.run(FakeEngine().encode(prompt)) == encode(render(prompt))


def test_the_script_sees_what_was_asked() -> None:
    seen: list[FakeRequest] = []

    def script(request: FakeRequest) -> str:
        seen.append(request)
        return "x"

    engine, sampling = FakeEngine(script), Sampling(temperature=0.3)
    samples_of(engine, CHAT, sampling, 2)
    samples_of(engine, Prompt(token_ids=encode("So far")), sampling)
    assert [(r.text, r.messages, r.index) for r in seen] == [
        (render(CHAT), CHAT.messages, 0),
        (render(CHAT), CHAT.messages, 1),
        ("So far", (), 0),
    ]
    assert {r.sampling for r in seen} == {sampling}


def test_seeds() -> None:
    def texts(engine: FakeEngine, seed: int | None, n: int = 2) -> list[str]:
        return [sample.text for sample in samples_of(engine, CHAT, Sampling(seed=seed), n)]

    def script(request: FakeRequest) -> str:
        return str(request.rng.random())

    engine = FakeEngine(script)
    assert texts(engine, 1) == texts(engine, 1)
    assert texts(engine, 1, 3)[:2] == texts(engine, 1)
    assert len({*texts(engine, 1), *texts(engine, 2)}) == 4
    assert texts(engine, None) != texts(engine, None)
    assert texts(FakeEngine(script, seed=5), None) == texts(FakeEngine(script, seed=5), None)
    assert texts(FakeEngine(script, seed=5), None) != texts(FakeEngine(script, seed=6), None)


def test_the_samples_of_a_call_share_its_prompt() -> None:
    chunks = asyncio.run(chunks_of(saying("one two"), n=2))
    tokens = len(encode(render(CHAT)))
    assert [(c.index, c.prompt_tokens, c.cached_tokens) for c in chunks[:4]] == [
        (0, tokens, 0),
        (1, tokens, tokens - 1),
        (0, 0, 0),
        (1, 0, 0),
    ]


def test_logprobs_are_those_of_the_script() -> None:
    engine = saying(FakeReply("Yes", {"No": 0.25, "Yes": 0.7, "Maybe": 0.05}))
    (sample,) = samples_of(engine, sampling=Sampling(logprobs=2))
    (entry,) = sample.logprobs
    assert (entry.token, entry.token_id) == ("Yes", encode("Yes")[0])
    assert entry.logprob == pytest.approx(math.log(0.7))
    assert [(top.token, top.logprob) for top in entry.top] == [
        ("Yes", pytest.approx(math.log(0.7))),
        ("No", pytest.approx(math.log(0.25))),
    ]
    assert samples_of(engine)[0].logprobs == ()


def test_logprobs_of_named_tokens() -> None:
    names: TokenIds = (*encode("No"), *encode("Never"), *encode("Yes"))
    engine = saying(FakeReply("Yes", {"No": 0.25, "Yes": 0.7}))
    (sample,) = samples_of(engine, sampling=Sampling(logprobs=3, logprob_token_ids=names))
    top = sample.logprobs[0].top
    assert tuple(rival.token_id for rival in top) == names
    assert top[1].logprob < top[0].logprob < top[2].logprob


def test_a_script_that_fails_fails_its_sample() -> None:
    def script(request: FakeRequest) -> str:
        if request.index == 1:
            raise ValueError("lost")
        return "fine"

    samples = samples_of(FakeEngine(script), n=3)
    assert [sample.finish_reason for sample in samples] == ["eos", "error", "eos"]
    assert str(samples[1].chunks[-1].error) == "lost"
    assert samples[1].completion_tokens == 0


def test_when_every_sample_fails_the_call_does() -> None:
    def script(request: FakeRequest) -> str:
        raise ValueError(f"lost {request.index}")

    engine = FakeEngine(script)
    with pytest.raises(ValueError, match="lost 0"):
        samples_of(engine, n=3)
    assert engine.live == 0


@pytest.mark.parametrize("size", [1, 2, 50])
def test_chunks_hold_so_many_tokens(size: int) -> None:
    engine = FakeEngine(lambda request: "one two three four five", chunk_tokens=size)
    chunks = asyncio.run(chunks_of(engine))
    assert all(len(chunk.token_ids) <= size for chunk in chunks)
    assert len(chunks) == math.ceil(5 / size)
    assert engine.generated == gathered(chunks)[0].completion_tokens


def test_it_knows_what_grows_and_what_was_generated() -> None:
    engine = FakeEngine(lambda request: "one two three")

    async def main() -> None:
        chunks = engine.generate(CHAT, PLAIN, 2)
        taken = [await anext(chunks) for _ in range(3)]
        assert engine.live == 2
        await chunks.aclose()
        assert engine.live == 0
        assert engine.generated == sum(chunk.completion_tokens for chunk in taken) == 3

    asyncio.run(main())


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        samples_of(FakeEngine(), sampling=Sampling(logit_bias={0xFF: 100}))
    assert caught.value.param == "logit_bias"
    with pytest.raises(Refused):
        asyncio.run(FakeEngine(continues=False).encode(CHAT))
    with pytest.raises(Refused):
        samples_of(FakeEngine(continues=False), Prompt(token_ids=encode("So far")))


TWO_WORDS = "one two"
"""Tokens: `one` and ` two`."""


@pytest.mark.parametrize(
    ("sampling", "text", "end", "tokens"),
    [
        (Sampling(stop_token_ids=(token_id(" two"),)), "one", "eos", 2),
        (Sampling(stop_token_ids=(token_id("two"),)), "one two", "eos", 3),
        (Sampling(stop_token_ids=(token_id("one"),), min_tokens=1), "one two", "eos", 3),
        (Sampling(min_tokens=5), "one twoone twoone", "eos", 6),
        (Sampling(min_tokens=5, max_tokens=3), "one twoone", "length", 3),
        (Sampling(min_tokens=2, stop=("n",)), "one two", "eos", 3),
        (Sampling(min_tokens=1, stop=("o",)), "one tw", "stop", 2),
        (Sampling(ignore_eos=True, max_tokens=4), "one twoone two", "length", 4),
        (Sampling(ignore_eos=True, stop=("twoo",)), "one ", "stop", 2),
        (Sampling(logit_bias={token_id("one"): -100}), " two", "eos", 2),
        (Sampling(logit_bias={token_id("a"): 100}, max_tokens=3), "aaa", "length", 3),
        (Sampling(logit_bias={token_id("one"): 5}), "one two", "eos", 3),
    ],
    ids=str,
)
def test_limits_and_biases_are_kept(sampling: Sampling, text: str, end: str, tokens: int) -> None:
    (sample,) = samples_of(saying(TWO_WORDS), sampling=sampling)
    assert (sample.text, sample.finish_reason, sample.completion_tokens) == (text, end, tokens)


def test_the_template_shows_tools_and_opens_a_thought() -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    called = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    prompt = Prompt(({"role": "assistant", "tool_calls": [called]},), template={"tools": [tool]})
    assert json.dumps(tool) in render(prompt)
    assert '<tool_call>{"name": "find"' in render(prompt)
    assert render(CHAT, "<think>\n").endswith("<assistant><think>\n")
    engine = FakeEngine(opening="<think>\n")
    assert engine.thinks
    assert asyncio.run(engine.opening(CHAT, PLAIN)) == "<think>\n"
    assert asyncio.run(engine.opening(CHAT, Sampling(structured={"type": "json_object"}))) == ""
    assert decode(asyncio.run(engine.encode(CHAT))).endswith("<think>\n")


def test_without_a_script_it_follows_schemas_and_calls_what_is_named() -> None:
    schema = {
        "type": "object",
        "properties": {
            "s": {"type": "string", "minLength": 2},
            "n": {"type": "integer", "minimum": 3, "maximum": 4},
            "l": {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 2},
            "b": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "o": {"type": ["null", "string"]},
        },
        "$defs": {"e": {"enum": ["x", "y"]}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    samples = samples_of(FakeEngine(), sampling=Sampling(structured=wanted), n=8)
    assert [Schema(schema, "f").fault_of(json.loads(sample.text)) for sample in samples] == [None] * 8
    assert len({sample.text for sample in samples}) > 1
    tools = [{"type": "function", "function": {"name": name}} for name in ("find", "add")]
    (sample,) = samples_of(FakeEngine(), Prompt(({"role": "user", "content": "find it"},), template={"tools": tools}))
    assert sample.text == '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'


def test_closed_it_answers_nothing_until_it_is_started_again() -> None:
    engine = FakeEngine()

    async def main() -> None:
        await engine.close()
        assert not engine.healthy
        with pytest.raises(EngineUnavailable):
            await chunks_of(engine)
        await engine.start()
        assert engine.healthy
        assert await chunks_of(engine)

    asyncio.run(main())


def test_without_a_script_it_repeats_the_question_and_guesses() -> None:
    texts = [sample.text for sample in samples_of(FakeEngine(), n=40)]
    assert all(text.startswith("You said: 2 + 2?") and text.endswith("}.") for text in texts)
    assert 1 < len(set(texts)) <= 10
    assert max(map(texts.count, texts)) > 15


def test_without_a_script_it_gives_verdicts() -> None:
    prompt = Prompt(({"role": "user", "content": "Is it right? Yes or No"},))
    for sample in samples_of(FakeEngine(), prompt, Sampling(logprobs=2), 8):
        entry = sample.logprobs[0]
        assert sample.text == entry.top[0].token
        assert sum(math.exp(rival.logprob) for rival in entry.top) == pytest.approx(1)
