"""What every engine keeps: add a new one to `MEMBERS`."""

import asyncio
import gc
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from patience import NEVER_S
from tiny_model import save_tiny_model
from upstream import StandIn

from strategies.core.contracts import Engine, Prompt, Refused, Sample, Sampling, text_of
from tts_server.engines.base import ServedEngine
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest

TOKENS = 24
"""Of a greedy answer; no member's ends before."""
GREEDY = Sampling(temperature=0.0, max_tokens=TOKENS)
LONG = 120


def chat(question: str) -> Prompt:
    return Prompt(messages=({"role": "user", "content": question},))


CHAT = chat("what is the answer to the question?")
OTHER = chat("Name three colours of the rainbow.")


@dataclass(frozen=True, slots=True)
class Member:
    """A started engine, the loop that it lives in, and a look behind it."""

    engine: ServedEngine
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    work: Callable[[], int]
    """Something that is more at every look while samples grow."""

    def samples(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> list[Sample]:
        drawn: list[Sample] = self.run(gather(self.engine, prompt, sampling, n))
        return drawn

    def sample(self, prompt: Prompt, sampling: Sampling) -> Sample:
        return self.samples(prompt, sampling)[0]


async def gather(engine: Engine, prompt: Prompt, sampling: Sampling, n: int = 1) -> list[Sample]:
    """A call's samples, each of which ends exactly once."""
    samples = [Sample() for _ in range(n)]
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        async for chunk in chunks:
            assert samples[chunk.index].finish_reason is None, "a sample went on after its end"
            samples[chunk.index].chunks.append(chunk)
    assert all(sample.finish_reason for sample in samples), "a sample did not end"
    return samples


def tell(asked: str, done: str, seed: object) -> str:
    """What the engines without a model say: a story of the seed and the question, from wherever it was left."""
    return f"{seed}: {asked} {'Words and more words follow. ' * 12}"[len(done) :]


class Start(Protocol):
    def __call__(self, stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member: ...


def fake(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    def script(request: FakeRequest) -> FakeReply:
        asked, _, done = request.text.partition("\n<assistant>")
        seed = request.rng.randrange(10**6) if request.sampling.temperature else 0
        return FakeReply(tell(asked, done, seed), {"a": 0.5, "b": 0.2, "c": 0.3})

    engine = FakeEngine(script, max_model_len=500, token_s=0.001)
    return Member(engine, run, lambda: engine.generated)


def upstream(
    kind: Any, stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], replicas: int = 1
) -> Member:
    from tts_server.engines.openai_http import OpenAIEngine
    from tts_server.engines.replicated import ReplicatedEngine

    def reply(body: dict[str, Any], index: int) -> str:
        text = "".join(map(chr, body["prompt"])) if "prompt" in body else text_of(body["messages"][-1])
        asked, _, done = text.partition("\n<assistant>")
        return tell(asked, done, f"{body.get('seed') or ''} {index}" if body.get("temperature") else 0)

    stand_ins = [StandIn(kind=kind, reply=reply, max_model_len=500, token_s=0.001) for _ in range(replicas)]
    urls = [run(stack.enter_async_context(stand_in.serve())) for stand_in in stand_ins]
    engine = ReplicatedEngine(urls) if replicas > 1 else OpenAIEngine(urls[0])
    return Member(engine, run, lambda: sum(stand_in.tokens for stand_in in stand_ins))


def openai_vllm(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    return upstream("vllm", stack, run)


def openai_replicas(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    return upstream("vllm", stack, run, replicas=2)


def openai_chat(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    return upstream("chat", stack, run)


def transformers(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    from tts_server.engines.transformers import TransformersEngine

    forwards = 0
    forward = LlamaForCausalLM.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal forwards
        forwards += 1
        return forward(self, *args, **kwargs)

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(LlamaForCausalLM, "forward", counted)
    return Member(TransformersEngine(save_tiny_model(tmp), name="tiny", max_model_len=500), run, lambda: forwards)


def vllm(stack: AsyncExitStack, run: Callable[[Coroutine[Any, Any, Any]], Any], tmp: Path) -> Member:
    pytest.importorskip("vllm")
    from tts_server.engines.vllm import VLLMEngine
    from tts_server.weights.catalog import resolve

    path = str(resolve("smollm2-135m-instruct"))
    engine = VLLMEngine(path, name="smol", max_model_len=500, args={"dtype": "float32"})
    seen = 0

    def work() -> int:
        nonlocal seen
        seen += int(engine._llm.get_num_unfinished_requests())
        return seen

    return Member(engine, run, work)


REAL = (
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning"),
)
MEMBERS = [fake, openai_vllm, openai_replicas, openai_chat, transformers, pytest.param(vllm, marks=REAL)]


@pytest.fixture(scope="module", params=MEMBERS)
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    start: Start = request.param
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        made = start(stack, runner.run, tmp_path_factory.mktemp("engine"))
        runner.run(made.engine.start())
        try:
            yield made
        finally:
            runner.run(made.engine.close())
            assert not made.engine.healthy
            with pytest.raises(EngineUnavailable):
                made.sample(CHAT, GREEDY)
            runner.run(stack.aclose())
    gc.collect()  # vLLM leaves its sockets' contexts to the collector, which warns; here that is let through


def texts(samples: Sequence[Sample]) -> list[str]:
    return [sample.text for sample in samples]


def test_it_is_an_engine(member: Member) -> None:
    assert isinstance(member.engine, Engine)
    assert member.engine.healthy
    assert member.engine.model


def test_the_counts_add_up(member: Member) -> None:
    samples = member.samples(CHAT, Sampling(temperature=1.0, max_tokens=9, seed=1), 4)
    prompts = {sum(chunk.prompt_tokens for chunk in sample.chunks) for sample in samples}
    assert len(prompts) == 1
    assert prompts.pop() > 0
    for sample in samples:
        first, *others = sample.chunks
        assert 0 <= first.cached_tokens <= first.prompt_tokens
        assert all(chunk.prompt_tokens == chunk.cached_tokens == 0 for chunk in others)
        assert all(chunk.completion_tokens >= len(chunk.token_ids) for chunk in sample.chunks)
        assert 0 < sample.completion_tokens <= 9
        # An end of sequence that is not told as a token id is one token too.
        untold = sample.completion_tokens - len(sample.token_ids)
        assert not member.engine.continues or untold in ({0, 1} if sample.finish_reason == "eos" else {0})


def test_the_token_limit_is_kept(member: Member) -> None:
    sample = member.sample(CHAT, replace(GREEDY, max_tokens=5))
    assert (sample.completion_tokens, sample.finish_reason) == (5, "length")
    assert member.sample(CHAT, GREEDY).text.startswith(sample.text.rstrip("�"))


def test_the_text_comes_in_pieces(member: Member) -> None:
    assert len(member.sample(CHAT, GREEDY).pieces) > TOKENS // 2


def test_a_greedy_answer_repeats(member: Member) -> None:
    one, other = member.sample(CHAT, GREEDY), member.sample(CHAT, GREEDY)
    assert (one.text, one.token_ids) == (other.text, other.token_ids)


def test_a_seed_draws_the_same_samples_again(member: Member) -> None:
    def drawn(seed: int) -> list[str]:
        return texts(member.samples(CHAT, Sampling(temperature=1.0, max_tokens=12, seed=seed), 3))

    assert drawn(5) == drawn(5)
    assert len({*drawn(5), *drawn(1000)}) == 6


def test_a_stop_string_ends_the_text(member: Member) -> None:
    free = member.sample(CHAT, GREEDY).text
    found = re.search(r"[a-zA-Z]{2}", free[4:])
    assert found
    stop = found[0]
    cut = free.index(stop)
    sampling = replace(GREEDY, stop=("§§", stop))
    without = member.sample(CHAT, sampling)
    assert without.text == free[:cut]
    assert without.finished
    if not member.engine.continues:
        # Plain chat tells no stop string, and cannot keep it.
        with pytest.raises(Refused):
            member.sample(CHAT, replace(sampling, include_stop=True))
        return
    kept = member.sample(CHAT, replace(sampling, include_stop=True))
    assert kept.text == free[: cut + len(stop)]
    for sample in (without, kept):
        assert (sample.finish_reason, sample.chunks[-1].stop) == ("stop", stop)


def test_logprobs_are_one_a_token(member: Member) -> None:
    sample = member.sample(CHAT, replace(GREEDY, logprobs=3))
    assert len(sample.logprobs) == sample.completion_tokens == TOKENS
    for entry in sample.logprobs:
        assert entry.logprob <= 0
        values = [rival.logprob for rival in entry.top]
        assert values == sorted(values, reverse=True)
        assert len(values) <= 3
    if sample.token_ids:
        assert tuple(entry.token_id for entry in sample.logprobs) == sample.token_ids
    assert all(entry.top == () for entry in member.sample(CHAT, replace(GREEDY, logprobs=0)).logprobs)
    assert member.sample(CHAT, GREEDY).logprobs == ()


def test_a_prompts_logprobs_are_those_of_its_tokens_but_the_first(member: Member) -> None:
    sampling = replace(GREEDY, max_tokens=2, logprobs=2, prompt_logprobs=2)
    if not member.engine.continues:
        with pytest.raises(Refused):
            member.sample(CHAT, sampling)
        return
    ids = member.run(member.engine.encode(CHAT))
    plain = member.sample(CHAT, replace(GREEDY, max_tokens=2))
    for sample in member.samples(CHAT, sampling, 2):
        first, *others = sample.chunks
        assert len(first.prompt_logprobs) == len(ids) - 1
        assert not any(chunk.prompt_logprobs for chunk in others)
        for entry in first.prompt_logprobs:
            assert -100 < entry.logprob < 0
            assert [rival.logprob for rival in entry.top] == sorted((r.logprob for r in entry.top), reverse=True)
            assert len(entry.top) <= 2
        assert len(sample.logprobs) == sample.completion_tokens == 2
        assert (sample.text, sample.token_ids) == (plain.text, plain.token_ids)
        assert first.prompt_tokens == len(ids)
    assert not any(chunk.prompt_logprobs for chunk in plain.chunks)
    (bare,) = member.samples(CHAT, replace(GREEDY, max_tokens=1, prompt_logprobs=0))
    assert [entry.logprob for entry in bare.chunks[0].prompt_logprobs] == pytest.approx(
        [entry.logprob for entry in first.prompt_logprobs], abs=1e-3
    )
    assert all(entry.top == () for entry in bare.chunks[0].prompt_logprobs)
    assert bare.logprobs == ()


def test_a_prompts_logprobs_foretell_what_is_sampled(member: Member) -> None:
    if not member.engine.continues:
        pytest.skip("it takes no token ids")
    sample = member.sample(CHAT, replace(GREEDY, logprobs=1))
    if {entry.logprob for entry in sample.logprobs} == {-0.5} or "fake" in member.engine.model:
        pytest.skip("it has no model")
    ids = member.run(member.engine.encode(CHAT)) + sample.token_ids
    again = member.sample(Prompt(token_ids=ids), replace(GREEDY, max_tokens=1, prompt_logprobs=1))
    told = again.chunks[0].prompt_logprobs[-TOKENS:]
    assert [entry.token_id for entry in told] == list(sample.token_ids)
    assert [e.logprob for e in told] == pytest.approx([e.logprob for e in sample.logprobs], abs=1e-2)
    # Greedy: the sampled token is the likeliest one, to the last bit.
    assert all(entry.top[0].logprob == entry.logprob for entry in told)


def test_its_tokenizer_reads_what_it_writes(member: Member) -> None:
    engine, run = member.engine, member.run
    if not engine.continues:
        with pytest.raises(Refused) as refused:
            _ = engine.tokenizer
        assert refused.value.param == "prompt"
        return
    text = "Words, 23 of them:\n\n  naïve ☃"
    ids = run(engine.tokenizer.encode(text, add_special_tokens=False))
    assert run(engine.tokenizer.encode(text))[-len(ids) :] == ids
    try:
        assert run(engine.tokenizer.decode(ids)) == text
    except Refused as refused:
        assert refused.param == "tokens"  # noqa: PT017  an upstream may tell no text
        return
    with pytest.raises(InvalidRequest) as unknown:
        run(engine.tokenizer.decode((2**40 + 200,)))
    assert unknown.value.param == "tokens"


def test_the_logprobs_of_named_tokens(member: Member) -> None:
    names = tuple(dict.fromkeys(reversed(member.sample(CHAT, GREEDY).token_ids)))[:3] or (1, 2, 3)
    sampling = replace(GREEDY, max_tokens=2, logprobs=3, logprob_token_ids=names)
    if not member.engine.continues:
        with pytest.raises(Refused):
            member.sample(CHAT, sampling)
        return
    for entry in member.sample(CHAT, sampling).logprobs:
        assert tuple(rival.token_id for rival in entry.top) == names


def test_calls_at_once_are_not_mixed_up(member: Member) -> None:
    async def all_at_once() -> list[list[Sample]]:
        calls = [(CHAT, GREEDY, 2), (OTHER, replace(GREEDY, max_tokens=7), 1), (OTHER, GREEDY, 1)]
        return await asyncio.gather(*(gather(member.engine, *call) for call in calls))

    first, short, second = member.run(all_at_once())
    alone, other = member.sample(CHAT, GREEDY).text, member.sample(OTHER, GREEDY).text
    assert alone != other
    assert texts(first) == [alone, alone]
    assert texts(second) == [other]
    assert short[0].completion_tokens == 7


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_the_iterator_stops_the_generation(member: Member, taken: int) -> None:
    async def main() -> None:
        before = member.work()
        chunks = member.engine.generate(CHAT, Sampling(temperature=1.0, seed=2, max_tokens=LONG), 3)
        for _ in range(taken):
            await anext(chunks)
        await chunks.aclose()
        await resting(member)
        assert member.work() - before < LONG // 2

    member.run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
def test_cancelling_the_consumer_stops_the_generation(member: Member, turns: int) -> None:
    async def main() -> None:
        others = asyncio.all_tasks()
        before = member.work()
        sampling = Sampling(temperature=1.0, seed=3, max_tokens=LONG)
        task = asyncio.create_task(gather(member.engine, CHAT, sampling, 3))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await resting(member)
        assert member.work() - before < LONG // 2
        assert {t for t in asyncio.all_tasks() - others if "uvicorn" not in repr(t)} == set()

    member.run(main())


async def resting(member: Member) -> None:
    """Waits until nothing is generated any more."""
    async with asyncio.timeout(NEVER_S):
        while True:
            before = member.work()
            await asyncio.sleep(0.1)
            if member.work() == before:
                return


def test_messages_and_their_ids_are_one_prompt(member: Member) -> None:
    engine = member.engine
    if not engine.continues:
        with pytest.raises(Refused):
            member.run(engine.encode(CHAT))
        with pytest.raises(Refused):
            member.sample(Prompt(token_ids=(1, 2, 3)), GREEDY)
        return
    ids = member.run(engine.encode(CHAT))
    assert member.run(engine.encode(Prompt(token_ids=ids))) == ids
    plain, encoded = member.sample(CHAT, GREEDY), member.sample(Prompt(token_ids=ids), GREEDY)
    assert (plain.text, plain.token_ids) == (encoded.text, encoded.token_ids)
    assert plain.chunks[0].prompt_tokens == encoded.chunks[0].prompt_tokens == len(ids)


def test_a_trajectory_goes_on_where_it_was_left(member: Member) -> None:
    engine = member.engine
    if not engine.continues:
        pytest.skip("it takes no token ids")
    whole = member.sample(CHAT, GREEDY)
    assert len(whole.token_ids) == TOKENS
    ids, text = member.run(engine.encode(CHAT)), ""
    for tokens in (7, 1, 16):
        piece = member.sample(Prompt(token_ids=ids), replace(GREEDY, max_tokens=tokens))
        ids, text = ids + piece.token_ids, text + piece.text
    assert ids[-TOKENS:] == whole.token_ids
    assert text == whole.text


def test_a_prompt_that_leaves_no_room_is_refused_before_any_token(member: Member) -> None:
    limit = member.engine.max_model_len
    if limit is None:
        pytest.skip("it does not tell its limit")
    before = member.work()
    with pytest.raises(ContextTooLong):
        member.sample(chat("too long " * limit), GREEDY)
    assert member.work() == before


def test_the_end_of_the_context_ends_a_sample(member: Member) -> None:
    engine = member.engine
    if engine.max_model_len is None or not engine.continues:
        pytest.skip("it does not tell its limit")
    ids = member.run(engine.encode(CHAT))
    full = (ids * engine.max_model_len)[: engine.max_model_len - 3]
    sample = member.sample(Prompt(token_ids=full), replace(GREEDY, max_tokens=None))
    assert sample.completion_tokens <= 3
    assert sample.finish_reason in ("length", "eos")
