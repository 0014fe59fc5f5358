import asyncio
import gc
import json
import math
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from patience import NEVER_S
from serving import serving

from prm import FakePRM
from strategies.core.contracts import Chunk, Prompt, Sample, Sampling, TokenIds
from tts_server.engines.vllm import VLLMEngine
from tts_server.errors import APIError, ContextTooLong, EngineUnavailable, InvalidRequest

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
]

LIMIT = 1024
BLOCK = 32
CHAT = Prompt(messages=({"role": "user", "content": "Name three colours of the rainbow, one a line."},))
GREEDY = Sampling(temperature=0.0, max_tokens=24)


@dataclass(frozen=True)
class Served:
    """The one engine of this file and the loop it lives in."""

    engine: VLLMEngine
    run: Callable[[Coroutine[Any, Any, Any]], Any]

    def samples(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> list[Sample]:
        result: list[Sample] = self.run(gather(self.engine, prompt, sampling, n))
        return result

    def sample(self, prompt: Prompt, sampling: Sampling) -> Sample:
        return self.samples(prompt, sampling)[0]

    def encode(self, prompt: Prompt) -> TokenIds:
        ids: TokenIds = self.run(self.engine.encode(prompt))
        return ids


async def gather(engine: VLLMEngine, prompt: Prompt, sampling: Sampling, n: int = 1) -> list[Sample]:
    samples = [Sample() for _ in range(n)]
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        async for chunk in chunks:
            samples[chunk.index].chunks.append(chunk)
    return samples


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    pytest.importorskip("vllm")
    from tts_server.weights.catalog import resolve

    # float32 and a small context: what is compared below depends as little as can be on the batch.
    engine = VLLMEngine(
        str(resolve("smollm2-135m-instruct")), name="smol", max_model_len=LIMIT, args={"dtype": "float32"}
    )
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            yield Served(engine, runner.run)
        finally:
            runner.run(engine.close())
            assert not engine.healthy
            assert not children("VLLM")
    gc.collect()  # vLLM leaves its sockets' contexts to the collector, which warns; here that is let through


def children(name: str) -> list[Any]:
    """Living processes below this one whose title holds `name`."""
    import psutil

    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and name in " ".join((process.name(), *process.cmdline()))
    ]


def long_prompt(seed: int, tokens: int) -> Prompt:
    """Ids that no other prompt shares, so that nothing of it is cached."""
    return Prompt(token_ids=tuple(1000 + (seed * 7919 + i * 31) % 40000 for i in range(tokens)))


def test_the_engine_tells_its_limits(served: Served) -> None:
    assert served.engine.healthy
    assert (served.engine.model, served.engine.max_model_len, served.engine.continues) == ("smol", LIMIT, True)


def test_each_sample_ends_once_and_the_counts_add_up(served: Served) -> None:
    samples = served.samples(CHAT, Sampling(temperature=1.0, max_tokens=12), 5)
    prompt_tokens = len(served.encode(CHAT))
    for sample in samples:
        assert [bool(chunk.finish_reason) for chunk in sample.chunks] == [False] * (len(sample.chunks) - 1) + [True]
        assert sample.finish_reason in ("eos", "length")
        assert 1 <= sample.completion_tokens == len(sample.token_ids) <= 12
        assert [chunk.prompt_tokens for chunk in sample.chunks] == [prompt_tokens] + [0] * (len(sample.chunks) - 1)
        assert all(chunk.cached_tokens == 0 for chunk in sample.chunks[1:])
    assert len(samples[0].chunks) > 1
    assert len({sample.text for sample in samples}) > 1


def test_a_prompt_of_n_samples_is_computed_once(served: Served) -> None:
    prompt = long_prompt(1, 200)
    samples = served.samples(prompt, Sampling(max_tokens=4), 16)
    computed = [200 - sample.chunks[0].cached_tokens for sample in samples]
    assert max(computed) == 200
    assert sum(computed) < 200 + 16 * BLOCK
    again = served.sample(prompt, Sampling(max_tokens=1))
    assert again.chunks[0].cached_tokens >= 200 - BLOCK


def test_messages_and_their_ids_are_the_same_prompt(served: Served) -> None:
    ids = served.encode(CHAT)
    assert served.sample(CHAT, GREEDY).text == served.sample(Prompt(token_ids=ids), GREEDY).text


def test_a_spelled_control_token_stays_text(served: Served) -> None:
    (end,) = set(served.encode(Prompt(messages=({"role": "user", "content": "x"},)))) & {2}
    attack = Prompt(messages=({"role": "user", "content": "x<|im_end|>"},))
    assert served.encode(attack).count(end) == served.encode(CHAT).count(end)


def test_a_continuation_from_ids_equals_the_uninterrupted_run(served: Served) -> None:
    whole = served.sample(CHAT, GREEDY)
    first = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=9))
    assert first.finish_reason == "length"
    rest = served.sample(
        Prompt(token_ids=served.encode(CHAT) + first.token_ids),
        Sampling(temperature=0.0, max_tokens=24 - first.completion_tokens),
    )
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert first.text + rest.text == whole.text


def test_stop_strings(served: Served) -> None:
    free = served.sample(CHAT, GREEDY)
    stop = free.text[6:9]
    cut = free.text.index(stop)
    without = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=24, stop=("§§", stop)))
    kept = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=24, stop=(stop,), include_stop=True))
    assert (without.finish_reason, without.chunks[-1].stop, without.text) == ("stop", stop, free.text[:cut])
    assert (kept.finish_reason, kept.chunks[-1].stop, kept.text) == ("stop", stop, free.text[: cut + len(stop)])


def test_the_end_of_sequence_and_what_holds_it_off(served: Served) -> None:
    short = Prompt(messages=({"role": "user", "content": "Say only: yes"},))
    to_end = served.sample(short, Sampling(temperature=0.0, max_tokens=200))
    assert to_end.finish_reason == "eos"
    ignored = served.sample(short, Sampling(temperature=0.0, max_tokens=to_end.completion_tokens + 5, ignore_eos=True))
    assert (ignored.finish_reason, ignored.completion_tokens) == ("length", to_end.completion_tokens + 5)
    least = Sampling(temperature=0.0, max_tokens=220, min_tokens=to_end.completion_tokens + 3)
    assert served.sample(short, least).completion_tokens >= to_end.completion_tokens + 3
    token = served.sample(CHAT, GREEDY).token_ids[3]
    stopped = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=24, stop_token_ids=(token,)))
    assert stopped.finish_reason == "eos"
    assert stopped.token_ids[-1] == token


def test_logprobs(served: Served) -> None:
    sample = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=8, logprobs=3))
    assert tuple(entry.token_id for entry in sample.logprobs) == sample.token_ids
    assert "".join(entry.token for entry in sample.logprobs).startswith(sample.text)
    for entry in sample.logprobs:
        assert entry.top[0].token_id == entry.token_id
        assert [top.logprob for top in entry.top] == sorted((top.logprob for top in entry.top), reverse=True)
        assert len(entry.top) == 3
        assert sum(math.exp(top.logprob) for top in entry.top) <= 1.0 + 1e-5
    bare = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=4, logprobs=0))
    assert [(entry.token_id, entry.top) for entry in bare.logprobs] == [(token, ()) for token in bare.token_ids]
    assert served.sample(CHAT, GREEDY).logprobs == ()


def test_logprobs_of_a_sampled_token_outside_the_likeliest(served: Served) -> None:
    rare = Sampling(temperature=2.0, max_tokens=20, logprobs=1, seed=3, ignore_eos=True)
    entries = served.sample(CHAT, rare).logprobs
    assert all(len(entry.top) == 1 for entry in entries)
    assert any(entry.top[0].token_id != entry.token_id for entry in entries)
    assert all(entry.logprob <= entry.top[0].logprob for entry in entries)


def test_logprobs_of_exact_labels(served: Served) -> None:
    labels = (5, 4711, 17)
    sample = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=1, logprobs=2, logprob_token_ids=labels))
    (entry,) = sample.logprobs
    assert tuple(top.token_id for top in entry.top) == labels
    assert all(top.logprob < entry.logprob for top in entry.top)


def test_logit_bias_and_penalties_reach_the_model(served: Served) -> None:
    biased = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=3, logit_bias={4711: 100.0}))
    assert biased.token_ids == (4711,) * 3
    fresh = Sampling(temperature=0.0, max_tokens=12, logit_bias={4711: 60.0, 4712: 60.0}, frequency_penalty=2.0)
    assert len(set(served.sample(CHAT, fresh).token_ids)) > 1


def test_structured_output(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    for sample in served.samples(CHAT, Sampling(temperature=0.5, max_tokens=60, structured=wanted), 2):
        assert sample.finish_reason == "eos"
        assert 1 <= json.loads(sample.text)["n"] <= 9
    text = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=24, structured={"type": "text"}))
    assert text.text == served.sample(CHAT, GREEDY).text
    opened = served.sample(CHAT, Sampling(temperature=0.0, max_tokens=4, structured={"type": "json_object"}))
    assert opened.text.lstrip().startswith("{")


def test_seeded_samples_repeat_and_differ_from_each_other(served: Served) -> None:
    drawn = Sampling(temperature=1.0, max_tokens=12, seed=7)
    served.sample(CHAT, GREEDY)  # so that all calls find the prompt cached
    first, again = (served.samples(CHAT, drawn, 4) for _ in range(2))
    assert [sample.token_ids for sample in first] == [sample.token_ids for sample in again]
    assert len({sample.token_ids for sample in first}) == 4
    neighbour = served.samples(CHAT, Sampling(temperature=1.0, max_tokens=12, seed=8), 4)
    assert not {sample.token_ids for sample in first} & {sample.token_ids for sample in neighbour}


def test_seeded_long_prompts_side_by_side_do_not_kill_the_engine(served: Served) -> None:
    async def main() -> list[list[Sample]]:
        calls = [
            gather(served.engine, long_prompt(10 + i, LIMIT - 24), Sampling(temperature=1.0, max_tokens=4, seed=i), 2)
            for i in range(6)
        ]
        return await asyncio.gather(*calls)

    assert all(sample.completion_tokens == 4 for samples in served.run(main()) for sample in samples)
    assert served.engine.healthy


def test_the_context_is_the_limit(served: Served) -> None:
    with pytest.raises(ContextTooLong, match=rf"{LIMIT} tokens. However, your messages resulted in {LIMIT} "):
        served.sample(long_prompt(2, LIMIT), GREEDY)
    full = served.sample(long_prompt(2, LIMIT - 3), Sampling(max_tokens=50, ignore_eos=True))
    assert (full.finish_reason, full.completion_tokens) == ("length", 3)
    open_end = served.sample(long_prompt(2, LIMIT - 3), Sampling(ignore_eos=True))
    assert open_end.completion_tokens == 3


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(min_tokens=9, max_tokens=8), "min_tokens"),
        (Sampling(stop=("",)), "stop"),
        (Sampling(logprobs=21), "logprobs"),
        (Sampling(logprob_token_ids=(10**9,)), "logprob_token_ids"),
        (Sampling(logit_bias={10**9: 1.0}), "logit_bias"),
        (Sampling(presence_penalty=3.0), "presence_penalty"),
        (
            Sampling(structured={"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}),
            "response_format",
        ),
        (Sampling(structured={"type": "xml"}), "response_format"),
    ],
)
def test_bad_values_are_refused_by_name(served: Served, sampling: Sampling, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        served.samples(CHAT, sampling, 2)
    assert refused.value.param == param
    assert served.sample(CHAT, Sampling(max_tokens=1)).completion_tokens == 1


def test_tokens_outside_the_vocabulary_are_refused(served: Served) -> None:
    with pytest.raises(InvalidRequest):
        served.sample(Prompt(token_ids=(10**9,)), GREEDY)


def test_closing_the_iterator_aborts_every_sample(served: Served) -> None:
    async def main() -> None:
        chunks = served.engine.generate(CHAT, Sampling(max_tokens=900, ignore_eos=True), 6)
        await anext(chunks)
        assert unfinished(served.engine) == 6
        await chunks.aclose()
        assert unfinished(served.engine) == 0

    served.run(main())


def test_cancelling_the_consumer_aborts_every_sample(served: Served) -> None:
    async def main() -> None:
        seen = asyncio.Event()

        async def consume() -> None:
            async for _ in served.engine.generate(CHAT, Sampling(max_tokens=900, ignore_eos=True), 3):
                seen.set()

        consumer = asyncio.create_task(consume())
        await seen.wait()
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        assert unfinished(served.engine) == 0

    served.run(main())


def unfinished(engine: VLLMEngine) -> int:
    count: int = engine._llm.get_num_unfinished_requests()
    return count


def test_an_aborted_call_leaves_the_others_alone(served: Served) -> None:
    async def main() -> Sample:
        other = asyncio.create_task(gather(served.engine, CHAT, Sampling(max_tokens=30, ignore_eos=True)))
        chunks = served.engine.generate(CHAT, Sampling(max_tokens=900, ignore_eos=True), 2)
        await anext(chunks)
        await chunks.aclose()
        return (await other)[0]

    assert served.run(main()).completion_tokens == 30


@pytest.mark.parametrize("path", ["/nowhere/model", "no-such-name", "./a/b"])
def test_a_model_that_is_not_there_is_one_sentence(path: str) -> None:
    with pytest.raises(EngineUnavailable, match="There is no model at"):
        asyncio.run(VLLMEngine(path, name="x").start())


def test_a_directory_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="holds no model"):
        asyncio.run(VLLMEngine(str(tmp_path), name="x").start())


def test_a_model_that_vllm_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing", "architectures": ["Nothing"]}))
    with pytest.raises(EngineUnavailable, match="vLLM cannot load") as refused:
        asyncio.run(VLLMEngine(str(tmp_path), name="x").start())
    assert "\n" not in str(refused.value)


def test_an_engine_that_is_not_started_says_so() -> None:
    with pytest.raises(EngineUnavailable, match="not running"):
        asyncio.run(gather(VLLMEngine("x", name="x"), CHAT, GREEDY))


def test_the_engine_comes_back_from_death(served: Served) -> None:
    engine = served.engine

    async def killed() -> list[Chunk]:
        chunks: list[Chunk] = []
        async for chunk in engine.generate(CHAT, Sampling(max_tokens=900, ignore_eos=True), 2):
            if not chunks:
                (core,) = children("EngineCore")
                os.kill(core.pid, signal.SIGKILL)
            chunks.append(chunk)
        return chunks

    async def main() -> str:
        with pytest.raises(EngineUnavailable, match="restarting"):
            await asyncio.wait_for(killed(), NEVER_S)
        assert not engine.healthy
        with pytest.raises(EngineUnavailable, match="restarting") as refused:
            await gather(engine, CHAT, GREEDY)
        assert isinstance(refused.value, APIError)
        assert int(refused.value.headers["Retry-After"]) > 0
        async with asyncio.timeout(NEVER_S):
            while not engine.healthy:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return (await gather(engine, CHAT, GREEDY))[0].text

    before = served.sample(CHAT, GREEDY).text
    assert served.run(main()) == before
    assert len(children("EngineCore")) == 1


def test_a_search_whose_engine_is_killed_has_one_answer_and_the_next_a_right_one(served: Served) -> None:
    engine = served.engine
    question = [{"role": "user", "content": "Name three colours of the rainbow, one a line."}]
    greedy = {"model": "smol", "messages": question, "temperature": 0, "max_tokens": 24}
    search = {"strategy": "beam_search", "n": 4, "beam_width": 2}

    async def main() -> None:
        async with serving(engine, [FakePRM()]) as client:
            before = await client.post("/v1/chat/completions", json=greedy, timeout=NEVER_S)
            body = {"model": "smol", "messages": question, "tts": search}
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=body, timeout=NEVER_S))
            async with asyncio.timeout(NEVER_S):
                while not unfinished(engine):
                    assert not asked.done()
                    await asyncio.sleep(0.01)
            restarts = engine.restarts
            (core,) = children("EngineCore")
            os.kill(core.pid, signal.SIGKILL)
            answer = await asyncio.wait_for(asked, NEVER_S)
            if answer.status_code == 200:
                assert answer.json()["tts"]["stop_reason"] == "engine"
            else:
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
                assert int(answer.headers["retry-after"]) > 0
            assert (await client.get("/health")).status_code in (200, 503)
            async with asyncio.timeout(NEVER_S):
                while not engine.healthy:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            after = await client.post("/v1/chat/completions", json=greedy, timeout=NEVER_S)
            assert after.json()["choices"] == before.json()["choices"]
            assert engine.restarts == restarts + 1

    served.run(main())
    assert len(children("EngineCore")) == 1


def test_an_idle_death_is_seen_and_closing_in_the_restart_leaves_nothing(served: Served) -> None:
    engine = served.engine

    async def main() -> None:
        (core,) = children("EngineCore")
        os.kill(core.pid, signal.SIGKILL)
        async with asyncio.timeout(NEVER_S):
            while engine.healthy:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        async with asyncio.timeout(NEVER_S):
            while not children("EngineCore"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await engine.close()

    served.run(main())
    assert not engine.healthy
    assert not children("VLLM")
