import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_model import EOS, save_tiny_model

from strategies.core.contracts import Engine, Message, Prompt, Refused, Sample, Sampling
from tts_server.engines.transformers import TransformersEngine
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest

torch: Any = pytest.importorskip("torch")
pytest.importorskip("transformers")

QUESTION: Message = {"role": "user", "content": "what is the answer?"}
CHAT = Prompt(messages=(QUESTION,))
LETTERS = dict.fromkeys(range(67, 93), 100.0)
"""Biases that leave only the 26 tokens of one ASCII letter."""
POISON = 54
"""A token whose prompts the model fails on, where a test says so."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The [rows, length] of every call of the model's forward."""
    from transformers import LlamaForCausalLM

    seen: list[tuple[int, ...]] = []
    forward = LlamaForCausalLM.forward

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", recorded)
    return seen


@asynccontextmanager
async def running(path: Path, **fields: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(path, name="tiny", **fields)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def draw(engine: Engine, prompt: Prompt = CHAT, n: int = 1, **fields: Any) -> list[Sample]:
    samples = [Sample() for _ in range(n)]
    async with aclosing(engine.generate(prompt, Sampling(**fields), n)) as chunks:
        async for chunk in chunks:
            assert not samples[chunk.index].finish_reason, "a sample went on after its end"
            samples[chunk.index].chunks.append(chunk)
    return samples


async def draw_one(path: Path, prompt: Prompt = CHAT, **fields: Any) -> Sample:
    async with running(path) as engine:
        return (await draw(engine, prompt, **fields))[0]


def reference(path: Path) -> Any:
    """The same model, plainly."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@torch.inference_mode()
def greedy(model: Any, ids: Sequence[int], tokens: int) -> tuple[int, ...]:
    """The likeliest continuation, by whole forward passes without a cache."""
    known = list(ids)
    while len(known) < len(ids) + tokens and (len(known) == len(ids) or known[-1] not in EOS):
        known.append(int(model(input_ids=torch.tensor([known])).logits[0, -1].argmax()))
    return tuple(known[len(ids) :])


def test_it_is_an_engine(tiny: Path) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            assert isinstance(engine, Engine)
            assert (engine.model, engine.max_model_len, engine.continues, engine.healthy) == ("tiny", 2048, True, True)
        assert not engine.healthy

    asyncio.run(main())


def test_each_sample_ends_once_and_the_counts_are_exact(tiny: Path) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            prompt_tokens = len(await engine.encode(CHAT))
            samples = await draw(engine, n=8, max_tokens=30, seed=3, stop_token_ids=tuple(range(100, 106)))
        assert {sample.finish_reason for sample in samples} >= {"eos", "length"}, "this seed should show both"
        for i, sample in enumerate(samples):
            assert sample.completion_tokens == len(sample.token_ids) <= 30
            assert [c.prompt_tokens for c in sample.chunks] == [prompt_tokens] + [0] * (len(sample.chunks) - 1)
            assert sum(c.cached_tokens for c in sample.chunks) == (prompt_tokens if i else 0)
            assert [c.finish_reason for c in sample.chunks[:-1]] == [None] * (len(sample.chunks) - 1)

    asyncio.run(main())


def test_the_prompt_is_computed_once_and_finished_samples_leave_the_batch(
    tiny: Path, forwards: list[tuple[int, ...]]
) -> None:
    async def main() -> list[Sample]:
        async with running(tiny) as engine:
            prompt = Prompt(token_ids=tuple(range(5, 205)) * 6)
            return await draw(engine, prompt, n=8, max_tokens=20, seed=3, stop_token_ids=tuple(range(100, 130)))

    samples = asyncio.run(main())
    lengths = [sample.completion_tokens for sample in samples]
    growing = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert len(set(growing)) > 2, "the samples of this test should end at different times"
    assert forwards == [(1, 512), (1, 512), (1, 176), *((rows, 1) for rows in growing)]


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("length", [3, 600])
def test_greedy_decoding_equals_whole_forward_passes(tmp_path: Path, window: int | None, length: int) -> None:
    path = save_tiny_model(tmp_path, window=window)
    prompt = Prompt(token_ids=tuple(token % 250 + 5 for token in range(0, 7 * length, 7)))

    async def main() -> None:
        async with running(path) as engine:
            wanted = greedy(reference(path), prompt.token_ids, 12)
            samples = await draw(engine, prompt, n=3, max_tokens=12, temperature=0.0)
            again = await draw(engine, prompt, max_tokens=12, temperature=0.0)
        assert [sample.token_ids for sample in (*samples, *again)] == [wanted] * 4
        # What lies behind a sliding window is gone, so such a model computes its prompts anew.
        assert again[0].chunks[0].cached_tokens == (0 if window else length - 1)

    asyncio.run(main())


def test_a_continuation_equals_the_uninterrupted_run_and_reuses_its_prompt(tiny: Path) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            ids = await engine.encode(CHAT)
            (whole,) = await draw(engine, max_tokens=40, temperature=0.0, ignore_eos=True)
            texts, trajectory, cached = [], ids, []
            for _ in range(4):
                prompt = Prompt(token_ids=trajectory)
                (step,) = await draw(engine, prompt, max_tokens=10, temperature=0.0, ignore_eos=True)
                trajectory += step.token_ids
                texts.append(step.text)
                cached.append(step.chunks[0].cached_tokens)
        assert trajectory == ids + whole.token_ids
        assert whole.text.startswith("".join(texts[:-1]))
        assert cached == [len(ids) - 1, len(ids), len(ids) + 10, len(ids) + 20]

    asyncio.run(main())


def test_kept_prompts_are_bounded_by_the_context(tiny: Path) -> None:
    async def main() -> list[int]:
        async with running(tiny, max_model_len=100) as engine:
            prompts = [Prompt(token_ids=(10 + i,) * 40) for i in range(3)]
            drawn = [(await draw(engine, prompts[i], max_tokens=1))[0] for i in (0, 1, 0, 2, 0, 1)]
        return [sample.chunks[0].cached_tokens for sample in drawn]

    # Two prompts fit; the third pushes out the second, which was used least recently.
    assert asyncio.run(main()) == [0, 0, 39, 0, 39, 0]


def test_special_tokens_in_a_message_are_text(tiny: Path) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            ids = await engine.encode(Prompt(messages=({"role": "user", "content": "<|im_end|>"},)))
        assert (ids.count(1), ids.count(2)) == (2, 1)

    asyncio.run(main())


def test_a_stop_string_ends_the_text_in_front_of_it_or_behind(tiny: Path) -> None:
    fields: dict[str, Any] = {"max_tokens": 20, "seed": 5, "logit_bias": LETTERS}

    async def main() -> None:
        async with running(tiny) as engine:
            (free,) = await draw(engine, **fields)
            stop = free.text[6:9]
            end = free.text.index(stop)
            (cut,) = await draw(engine, **fields, stop=("??", stop))
            (kept,) = await draw(engine, **fields, stop=(stop,), include_stop=True)
            (late,) = await draw(engine, **fields, stop=(stop,), min_tokens=15)
        assert len(free.text) == 20
        assert cut.text == free.text[:end]
        assert kept.text == free.text[: end + 3]
        assert (cut.finish_reason, cut.chunks[-1].stop) == ("stop", stop)
        assert cut.token_ids == kept.token_ids == free.token_ids[: end + 3], "the stop string's own tokens count"
        assert (late.text, late.finish_reason) == (free.text, "length")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, ("eos", 1)),
        ({"logit_bias": {2: 1000.0}}, ("eos", 1)),
        ({"min_tokens": 3}, ("eos", 4)),
        ({"ignore_eos": True}, ("length", 9)),
        ({"ignore_eos": True, "stop_token_ids": (0,)}, ("eos", 1)),
        ({"ignore_eos": True, "stop_token_ids": (0,), "min_tokens": 3}, ("eos", 4)),
        ({"logit_bias": {50: 1000.0}, "stop_token_ids": (50,)}, ("eos", 1)),
        ({"logit_bias": {50: 1000.0}}, ("length", 9)),
    ],
)
def test_samples_end_at_the_tokens_that_end_them(tiny: Path, fields: dict[str, Any], wanted: tuple[str, int]) -> None:
    sample = asyncio.run(draw_one(tiny, **{"max_tokens": 9, "logit_bias": {0: 1000.0}} | fields))
    assert (sample.finish_reason, sample.completion_tokens) == wanted
    assert sample.chunks[-1].stop is None


@pytest.mark.parametrize(("include", "text"), [(False, ""), (True, "P")])
def test_a_stop_token_has_text_only_if_asked(tiny: Path, include: bool, text: str) -> None:
    sample = asyncio.run(draw_one(tiny, logit_bias={50: 1000.0}, stop_token_ids=(50,), include_stop=include))
    assert (sample.text, sample.token_ids) == (text, (50,))


def test_the_end_of_the_context_ends_a_sample(tiny: Path) -> None:
    async def main() -> Sample:
        async with running(tiny, max_model_len=50) as engine:
            return (await draw(engine, Prompt(token_ids=(9,) * 40), ignore_eos=True))[0]

    sample = asyncio.run(main())
    assert (sample.finish_reason, sample.completion_tokens) == ("length", 10)


def test_the_generation_config_gives_defaults_that_a_request_overrides(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, do_sample=True, top_k=1)

    async def main() -> None:
        async with running(path) as engine:
            likeliest = greedy(reference(path), await engine.encode(CHAT), 8)
            default = await draw(engine, n=3, max_tokens=8)
            free = await draw(engine, n=3, max_tokens=8, top_k=0, temperature=2.0)
        assert [sample.token_ids for sample in default] == [likeliest] * 3
        assert len({sample.token_ids for sample in free}) == 3

    asyncio.run(main())


def test_seeded_samples_repeat_whatever_runs_beside_them(tiny: Path) -> None:
    fields: dict[str, Any] = {"max_tokens": 15, "ignore_eos": True}

    async def main() -> None:
        async with running(tiny) as engine:
            alone = await draw(engine, n=2, seed=1, **fields)
            more, _, other, free = await asyncio.gather(
                draw(engine, n=4, seed=1, **fields),
                draw(engine, Prompt(token_ids=(7, 8, 9)), n=3, **fields),
                draw(engine, n=2, seed=2, **fields),
                draw(engine, n=2, **fields),
            )
        assert [sample.token_ids for sample in more[:2]] == [sample.token_ids for sample in alone]
        assert len({sample.token_ids for sample in (*more, *other, *free)}) == 8

    asyncio.run(main())


def test_logprobs_are_the_models_own(tiny: Path) -> None:
    shaping: dict[str, Any] = {"temperature": 0.5, "top_k": 50, "repetition_penalty": 1.3, "logit_bias": {7: 3.0}}

    async def main() -> None:
        async with running(tiny) as engine:
            ids = await engine.encode(CHAT)
            samples = await draw(engine, n=2, max_tokens=6, logprobs=3, ignore_eos=True, **shaping)
            (bare,) = await draw(engine, max_tokens=2, logprobs=0)
            (chosen,) = await draw(engine, max_tokens=1, logprobs=2, logprob_token_ids=(90, 80))
        model = reference(tiny)
        for sample in samples:
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids + sample.token_ids])).logits[0, len(ids) - 1 : -1]
            wanted = logits.log_softmax(-1)
            assert [found.token_id for found in sample.logprobs] == list(sample.token_ids)
            for row, token, found in zip(wanted, sample.token_ids, sample.logprobs, strict=True):
                likeliest = row.topk(3)
                assert found.logprob == pytest.approx(row[token].item(), abs=1e-4)
                assert [top.token_id for top in found.top] == likeliest.indices.tolist()
                assert [top.logprob for top in found.top] == pytest.approx(likeliest.values.tolist(), abs=1e-4)
        assert [found.top for found in bare.logprobs] == [(), ()]
        first = chosen.logprobs[0].top
        assert [(top.token_id, top.token) for top in first] == [(90, "x"), (80, "n")]
        assert [top.logprob for top in first] == pytest.approx(wanted[0, [90, 80]].tolist(), abs=1e-4)

    asyncio.run(main())


def test_closing_the_iterator_stops_the_decoding(tiny: Path, forwards: list[tuple[int, ...]]) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            async with aclosing(engine.generate(CHAT, Sampling(ignore_eos=True), 4)) as chunks:
                for _ in range(8):
                    await anext(chunks)
            before = len(forwards)
            await draw(engine, Prompt(token_ids=(7, 8)), max_tokens=3, ignore_eos=True)
        # One prefill, two tokens, and the step that may have been in progress.
        assert len(forwards) - before <= 4

    asyncio.run(main())


def test_cancelling_the_consumer_stops_the_decoding(tiny: Path, forwards: list[tuple[int, ...]]) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            task = asyncio.create_task(draw(engine, n=4, ignore_eos=True))
            await draw(engine, max_tokens=3, ignore_eos=True)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            before = len(forwards)
            await draw(engine, Prompt(token_ids=(7, 8)), max_tokens=3, ignore_eos=True)
        assert len(forwards) - before <= 4

    asyncio.run(main())


def test_a_short_call_does_not_wait_for_a_long_one(tiny: Path) -> None:
    ended: list[str] = []

    async def tell(name: str, engine: Engine, prompt: Prompt, tokens: int) -> None:
        await draw(engine, prompt, max_tokens=tokens, ignore_eos=True)
        ended.append(name)

    async def main() -> None:
        async with running(tiny) as engine:
            await asyncio.gather(
                tell("long", engine, CHAT, 300), tell("short", engine, Prompt(token_ids=(9,) * 1200), 10)
            )

    asyncio.run(main())
    assert ended == ["short", "long"]


def test_a_failing_call_hurts_no_other(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def fragile(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (kwargs["input_ids"] == POISON).any():
            raise RuntimeError("out of memory")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", fragile)

    async def main() -> None:
        async with running(tiny) as engine:
            good, bad = await asyncio.gather(
                draw(engine, max_tokens=30, logit_bias=LETTERS),
                draw(engine, max_tokens=30, logit_bias={POISON: 1000.0}),
                return_exceptions=True,
            )
            assert isinstance(good, list)
            assert good[0].completion_tokens == 30
            assert isinstance(bad, RuntimeError)
            assert str(bad) == "out of memory"
            assert engine.healthy
            assert (await draw(engine, max_tokens=2, logit_bias=LETTERS))[0].completion_tokens == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "param", "prompt", "sampling"),
    [
        (Refused, "response_format", CHAT, Sampling(structured={"type": "json_object"})),
        (ContextTooLong, "messages", Prompt(token_ids=(9,) * 2048), Sampling()),
        (InvalidRequest, "messages", Prompt(token_ids=(9, 10_000)), Sampling()),
        (InvalidRequest, "messages", Prompt(token_ids=(-1,)), Sampling()),
        (InvalidRequest, "logit_bias", CHAT, Sampling(logit_bias={10_000: 1.0})),
        (InvalidRequest, "logprob_token_ids", CHAT, Sampling(logprob_token_ids=(10_000,))),
        (InvalidRequest, "stop_token_ids", CHAT, Sampling(stop_token_ids=(10_000,))),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tiny: Path, error: type[Refused | InvalidRequest], param: str, prompt: Prompt, sampling: Sampling
) -> None:
    async def main() -> None:
        async with running(tiny) as engine:
            with pytest.raises(error) as refused:
                await anext(engine.generate(prompt, sampling))
            assert refused.value.param == param

    asyncio.run(main())


def test_closing_ends_what_runs_and_leaves_no_thread(tiny: Path) -> None:
    async def main() -> None:
        engine = TransformersEngine(tiny, name="leaver")
        with pytest.raises(EngineUnavailable):
            await engine.encode(CHAT)
        await engine.start()
        tasks = [asyncio.create_task(draw(engine, ignore_eos=True)) for _ in range(3)]
        assert any("leaver" in thread.name for thread in threading.enumerate())
        await draw(engine, max_tokens=1)
        await engine.close()
        await engine.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in ended] == [EngineUnavailable] * 3
        assert not any("leaver" in thread.name for thread in threading.enumerate())
        with pytest.raises(EngineUnavailable):
            await draw(engine)

    asyncio.run(main())


def test_an_event_loop_that_is_gone_does_not_hurt_the_worker(tiny: Path) -> None:
    engine = TransformersEngine(tiny, name="tiny")
    asyncio.run(engine.start())

    async def leave() -> None:
        chunks = engine.generate(CHAT, Sampling(ignore_eos=True), 2)
        await anext(chunks)
        gone.append(chunks)

    gone: list[Any] = []
    asyncio.run(leave())
    assert asyncio.run(draw(engine, max_tokens=3, ignore_eos=True))[0].completion_tokens == 3
    asyncio.run(engine.close())


def test_a_missing_package_names_the_extra(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[transformers\]'"):
        asyncio.run(TransformersEngine(tiny, name="tiny").start())


@pytest.fixture(scope="module")
def smollm() -> Path:
    from tts_server.weights.catalog import resolve

    return Path(resolve("smollm2-135m-instruct"))


@pytest.mark.real
def test_greedy_text_equals_that_of_transformers(smollm: Path) -> None:
    from transformers import AutoTokenizer

    model, tokenizer = reference(smollm), AutoTokenizer.from_pretrained(str(smollm))

    async def main() -> None:
        async with running(smollm) as engine:
            for question in ("What is the capital of France?", "Zähle bis fünf.", "Say 你好 🙂 twice."):
                prompt = Prompt(messages=({"role": "user", "content": question},))
                ids = await engine.encode(prompt)
                (sample,) = await draw(engine, prompt, max_tokens=40, temperature=0.0)
                generated = model.generate(
                    torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False, max_new_tokens=40
                )[0, len(ids) :]
                assert sample.token_ids == tuple(generated.tolist())
                assert sample.text == tokenizer.decode(generated, skip_special_tokens=True)

    asyncio.run(main())


@pytest.mark.real
def test_real_steps_join_to_the_uninterrupted_text(smollm: Path) -> None:
    prompt = Prompt(messages=({"role": "user", "content": "Count to ten in words, then draw three emojis."},))

    async def main() -> None:
        async with running(smollm) as engine:
            (whole,) = await draw(engine, prompt, max_tokens=36, temperature=0.0)
            trajectory, text = await engine.encode(prompt), ""
            while len(text) < len(whole.text):
                (step,) = await draw(engine, Prompt(token_ids=trajectory), max_tokens=4, temperature=0.0)
                trajectory += step.token_ids
                text += step.text
        assert text.startswith(whole.text)

    asyncio.run(main())
