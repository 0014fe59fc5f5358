import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from serving import serving, until
from upstream import Body, Failure, StandIn

from prm import FakePRM
from strategies.core.contracts import Chunk, Prompt, Refused, Sample, Sampling
from tts_server.engines.replicated import ReplicatedEngine
from tts_server.engines.replication.routing import Replica
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest, UpstreamError

QUESTION = "<user>Tell me of the sea, and of all the ships that are on it.\n<assistant>"
IDS = Prompt(token_ids=tuple(map(ord, QUESTION)))
CHAT = Prompt(messages=({"role": "user", "content": "Tell me of the sea, and of all the ships that are on it."},))
STORY = "The sea is wide. The ships are many. They come and go, and nobody counts them. The end."
LONG = Sampling(max_tokens=100)


def tell(body: Body, index: int) -> str:
    """A story from wherever it was left; with a seed, one of its own."""
    if "messages" in body:
        return STORY
    seed, asked = body.get("seed"), "".join(map(chr, body["prompt"]))
    said = asked.partition("<assistant>")[2]
    return (f"[{seed}]" if seed is not None and not said else "") + STORY[len(said.rpartition("]")[2]) :]


def stand_in(**options: Any) -> StandIn:
    return StandIn(**{"opening": "", "reply": tell, "max_model_len": 400} | options)


class Fleet:
    """A replicated engine and its stand-ins."""

    def __init__(self, engine: ReplicatedEngine, stand_ins: list[StandIn]) -> None:
        self.engine = engine
        self.stand_ins = stand_ins

    def home(self, prompt: Prompt = IDS) -> tuple[StandIn, StandIn]:
        """The stand-in at which a prompt is at home, and another one."""
        here = self.engine._homes.choose(prompt, self.engine.upstreams)
        order = sorted(range(len(self.stand_ins)), key=lambda i: self.engine.upstreams[i] is not here)
        return self.stand_ins[order[0]], self.stand_ins[order[1]]

    def replica(self, of: StandIn) -> Replica:
        return self.engine.upstreams[self.stand_ins.index(of)]

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self.stand_ins)


@asynccontextmanager
async def started(*stand_ins: StandIn, **options: Any) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(each.serve()) for each in stand_ins]
        engine = ReplicatedEngine(urls, **{"backoff_s": 0.01, "check_s": 30.0} | options)
        await engine.start()
        for each in stand_ins:
            each.forget()
        try:
            yield Fleet(engine, list(stand_ins))
        finally:
            await engine.close()
            assert not any(replica.live for replica in engine.upstreams)


async def chunks_of(
    engine: ReplicatedEngine, prompt: Prompt = IDS, sampling: Sampling = LONG, n: int = 1
) -> list[Chunk]:
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        return [chunk async for chunk in chunks]


async def samples_of(
    engine: ReplicatedEngine, prompt: Prompt = IDS, sampling: Sampling = LONG, n: int = 1
) -> list[Sample]:
    samples = [Sample() for _ in range(n)]
    for chunk in await chunks_of(engine, prompt, sampling, n):
        assert samples[chunk.index].finish_reason is None
        samples[chunk.index].chunks.append(chunk)
    assert all(sample.finish_reason for sample in samples)
    return samples


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_samples_of_one_prompt_are_one_request_to_one_replica() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, other = fleet.home()
            samples = await samples_of(fleet.engine, n=4)
            assert [sample.text for sample in samples] == [STORY] * 4
            assert [body["n"] for body in home.bodies] == [4]
            assert (other.bodies, fleet.tokens) == ([], 4 * len(STORY))

    run(main)


def test_a_chat_is_encoded_by_any_replica_and_answered_by_its_home() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            assert await fleet.engine.encode(CHAT) == IDS.token_ids
            for _ in range(3):
                await samples_of(fleet.engine, CHAT)
            home, other = fleet.home()
            assert (len(home.bodies), len(other.bodies)) == (3, 0)
            asked = [len([path for path, _ in each.requests if path == "/tokenize"]) for each in fleet.stand_ins]
            assert asked == [2, 2]
            assert await fleet.engine.tokenizer.decode((104, 105)) == "hi"
            assert await fleet.engine.tokenizer.encode("hi", add_special_tokens=False) == (104, 105)

    run(main)


def test_an_engine_of_replicas_is_what_each_of_them_is() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in(), name="mine") as fleet:
            engine = fleet.engine
            assert (engine.model, engine.max_model_len, engine.continues, engine.healthy) == ("mine", 400, True, True)
            assert (engine.thinks, engine.calls_itself, engine.tool_format) == (True, False, None)
            assert await engine.opening(IDS, LONG) == ""
        assert not engine.healthy
        with pytest.raises(EngineUnavailable):
            await chunks_of(engine)
        async with started(stand_in(kind="chat"), stand_in(kind="chat")) as fleet:
            assert (fleet.engine.continues, fleet.engine.tool_format) == (False, "hermes")
            with pytest.raises(Refused, match="token ids"):
                await chunks_of(fleet.engine)
            with pytest.raises(Refused, match="token ids"):
                _ = fleet.engine.tokenizer

    run(main)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (stand_in(models=("another",)), "serves 'another' and not 'stand-in'"),
        (stand_in(max_model_len=300), "a context of 300 tokens and not of 400"),
        (stand_in(kind="chat"), "has a context of None tokens and not of 400"),
        (stand_in(opening="<think>\n"), "another chat template or tokenizer"),
        (stand_in(refuses=frozenset({"logprobs"})), "asked for logprobs"),
    ],
    ids=["model", "context", "kind", "template", "ability"],
)
def test_upstreams_that_are_not_the_same_are_refused_by_name(other: StandIn, words: str) -> None:
    async def main() -> None:
        async with stand_in().serve() as first, other.serve() as second:
            engine = ReplicatedEngine([first, second])
            with pytest.raises(UpstreamError, match=words) as caught:
                await engine.start()
            assert first in caught.value.message
            assert second in caught.value.message
            engine = ReplicatedEngine([first, second], upstream_model="stand-in")
            if "'another'" in words:
                with pytest.raises(UpstreamError, match="does not serve 'stand-in'; it serves: another"):
                    await engine.start()

    run(main)


def test_urls_are_looked_at() -> None:
    with pytest.raises(ValueError, match="http://a is given twice"):
        ReplicatedEngine(["http://a/v1", "http://b", "http://a/"])
    with pytest.raises(ValueError, match="upstream's URL"):
        ReplicatedEngine(["http://a", "b:80"])


def test_one_that_is_down_at_the_start_is_a_warning_and_comes_later(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        first, second = stand_in(), stand_in()
        async with second.serve() as there:
            pass
        async with first.serve() as here:
            engine = ReplicatedEngine([there, here], backoff_s=0.01, check_s=0.02)
            with caplog.at_level(logging.WARNING):
                await engine.start()
            assert f"{there}: The upstream cannot be reached (ConnectError).; going on without it" in caplog.text
            assert [replica.healthy for replica in engine.upstreams] == [False, True]
            assert engine.healthy
            assert (await samples_of(engine))[0].text == STORY
            async with second.serve(int(there.rpartition(":")[2])):
                await until(lambda: all(replica.healthy for replica in engine.upstreams))
            await engine.close()

    run(main)


def test_without_any_upstream_there_is_no_start() -> None:
    async def main() -> None:
        with pytest.raises(UpstreamError, match=r"127.0.0.1:9: .*reached.*127.0.0.1:10: .*reached"):
            await ReplicatedEngine(["http://127.0.0.1:9", "http://127.0.0.1:10"]).start()

    run(main)


@pytest.mark.parametrize("kind", ["vllm", "chat"])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_fails_before_the_first_token_goes_to_another_replica(kind: Any, status: int) -> None:
    prompt = IDS if kind == "vllm" else CHAT

    async def main() -> None:
        async with started(stand_in(kind=kind), stand_in(kind=kind)) as fleet:
            home, other = fleet.home(prompt)
            home.failures = [Failure(status, {"error": {"message": "no"}}, {"retry-after": "20"})]
            samples = await samples_of(fleet.engine, prompt, n=2)
            assert [sample.text for sample in samples] == [STORY] * 2
            assert sum(sample.completion_tokens for sample in samples) == fleet.tokens == 2 * len(STORY)
            assert (len(home.bodies), len(other.bodies)) == (1, 1)
            assert (fleet.replica(home).failovers, fleet.replica(other).failovers) == (2, 0)
            assert fleet.replica(home).failed == {str(status): 1}
            assert fleet.replica(home).healthy
            # Whoever said that it is busy is not asked again before it wants to be.
            assert fleet.replica(home).breaker.admits is (status != 429)

    run(main)


def test_what_the_request_is_at_fault_for_goes_to_nobody_else() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, other = fleet.home()
            home.failures = [Failure(400, {"error": {"message": "no such thing", "param": "top_k"}})]
            with pytest.raises(InvalidRequest, match="no such thing"):
                await chunks_of(fleet.engine)
            with pytest.raises(ContextTooLong):
                await chunks_of(fleet.engine, Prompt(token_ids=(1,) * 400))
            assert (other.bodies, fleet.replica(home).failovers) == ([], 0)

    run(main)


def test_all_that_fail_are_asked_again_and_then_the_last_failure_is_told() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            for each in fleet.stand_ins:
                each.failures = [Failure(429, {"error": {"message": "busy"}}, {"retry-after": "0.01"})]
            assert (await samples_of(fleet.engine))[0].text == STORY
            assert sum(replica.retried for replica in fleet.engine.upstreams) == 1
            for each in fleet.stand_ins:
                each.failures = [Failure(429, {"error": {"message": "busy"}}, {"retry-after": "0.01"})] * 9
            with pytest.raises(UpstreamError, match="busy"):
                await chunks_of(fleet.engine)

    run(main)


def test_a_replica_that_dies_is_left_alone_and_found_again() -> None:
    async def main() -> None:
        first, second = stand_in(), stand_in()
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(first.serve())
            async with second.serve() as there:
                engine = ReplicatedEngine([here, there], backoff_s=0.01, check_s=0.02)
                stack.push_async_callback(engine.close)
                await engine.start()
            await until(lambda: not engine.upstreams[1].healthy)
            assert engine.healthy
            asked = [replace(IDS, token_ids=(*range(50, 150), *IDS.token_ids[-20:], i)) for i in range(12)]
            first.forget()
            await asyncio.gather(*(chunks_of(engine, prompt) for prompt in asked))
            assert len(first.bodies) == 12
            async with second.serve(int(there.rpartition(":")[2])):
                await until(lambda: engine.upstreams[1].healthy)
                second.forget()
                new = [replace(IDS, token_ids=(i, *IDS.token_ids)) for i in range(200, 232)]
                await asyncio.gather(*(chunks_of(engine, prompt) for prompt in new))
                assert second.bodies

    run(main)


def test_one_that_comes_back_with_another_model_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        first, second, changed = stand_in(), stand_in(), stand_in(models=("changed",))
        async with first.serve() as here:
            async with second.serve() as there:
                engine = ReplicatedEngine([here, there], backoff_s=0.01, check_s=0.02)
                await engine.start()
            await until(lambda: not engine.upstreams[1].healthy)
            with caplog.at_level(logging.WARNING):
                async with changed.serve(int(there.rpartition(":")[2])):
                    await until(
                        lambda: "left out: unlike the others it serves 'changed' and not 'stand-in'" in caplog.text
                    )
            assert not engine.upstreams[1].healthy
            await engine.close()

    run(main)


@pytest.mark.parametrize("trouble", ["cut", "garbage", "error", "silence", "abort"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_sample_outlives_its_replica(trouble: Any, n: int) -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, other = fleet.home()
            home.trouble, home.after = trouble, 10 * n
            samples = await samples_of(fleet.engine, n=n)
            assert [sample.text for sample in samples] == [STORY] * n
            assert ["".join(map(chr, sample.token_ids)) for sample in samples] == [STORY] * n
            # Each token counts once, whoever told it.
            told = sum(sample.completion_tokens for sample in samples)
            assert told == 10 * n + other.tokens == n * len(STORY)
            prompts = [[chunk.prompt_tokens for chunk in sample.chunks if chunk.prompt_tokens] for sample in samples]
            assert prompts == [[len(QUESTION), len(QUESTION) + 10]] * n
            assert [len(body["prompt"]) for body in other.bodies] == [len(QUESTION) + 10] * n
            assert [body["max_tokens"] for body in other.bodies] == [90] * n
            assert fleet.replica(home).failovers == n

    run(main)


def test_a_search_outlives_all_its_replicas_but_one() -> None:
    async def main() -> None:
        async with started(*(stand_in() for _ in range(3))) as fleet:
            first, _ = fleet.home()
            first.trouble, first.after = "cut", 10
            others = [each for each in fleet.stand_ins if each is not first]
            for each in others:
                each.trouble, each.after, each.token_s = "cut", 5, 0.01
            seen = fleet.engine.generate(IDS, LONG)
            text = ""
            async for chunk in seen:
                text += chunk.text
                if len(text) == 12:
                    # Whoever has it now goes too; the last one stays.
                    (last,) = [each for each in others if not each.live]
                    last.trouble = None
            assert text == STORY
            assert sum(replica.failovers for replica in fleet.engine.upstreams) == 2

    run(main)


def test_a_call_that_breaks_every_replica_fails() -> None:
    async def main() -> None:
        async with started(*(stand_in(trouble=None) for _ in range(5))) as fleet:
            for each in fleet.stand_ins:
                each.trouble, each.after = "cut", 5
            with pytest.raises(UpstreamError, match="cut its answer short"):
                await chunks_of(fleet.engine)
            assert sum(bool(each.bodies) for each in fleet.stand_ins) == 3

    run(main)


def test_seeded_samples_that_had_not_begun_are_the_same_elsewhere_and_rests_repeat() -> None:
    sampling = replace(LONG, seed=7)

    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, _ = fleet.home()
            whole = await samples_of(fleet.engine, sampling=sampling, n=2)
            assert [sample.text[:3] for sample in whole] == ["[7]", "[8]"]
            home.broken = {8: Failure(500)}
            again = await samples_of(fleet.engine, sampling=sampling, n=2)
            assert [sample.text for sample in again] == [sample.text for sample in whole]
        seeds = []
        for _ in range(2):
            async with started(stand_in(), stand_in()) as fleet:
                home, other = fleet.home()
                home.trouble, home.after = "cut", 10
                survived = await samples_of(fleet.engine, sampling=sampling, n=2)
                assert [sample.text for sample in survived] == [sample.text for sample in whole]
                seeds.append({body["seed"] for body in other.bodies})
        assert seeds[0] == seeds[1]
        assert len(seeds[0] - {7, 8}) == 2

    run(main)


def test_a_stop_string_across_the_loss_ends_the_sample() -> None:
    sampling = replace(LONG, stop=("wide. The",), include_stop=True)

    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, other = fleet.home()
            home.trouble, home.after = "cut", STORY.index("wide. The") + 5
            (sample,) = await samples_of(fleet.engine, sampling=sampling)
            assert (sample.text, sample.finish_reason, sample.chunks[-1].stop) == (
                "The sea is wide. The",
                "stop",
                "wide. The",
            )
            await until(lambda: not other.live)

    run(main)


@pytest.mark.parametrize(
    "sampling",
    [replace(LONG, structured={"type": "json_object"}), replace(LONG, presence_penalty=0.5)],
    ids=["constrained", "penalised"],
)
def test_what_cannot_go_on_in_its_middle_fails_as_one_branch(sampling: Sampling) -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, other = fleet.home()
            home.reply = lambda body, index: "short" if index else STORY
            home.trouble, home.after = "cut", 20
            lost, short = await samples_of(fleet.engine, sampling=sampling, n=2)
            assert (short.text, short.finish_reason) == ("short", "eos")
            assert (lost.finish_reason, lost.completion_tokens, other.bodies) == ("error", 15, [])

    run(main)


def test_a_chat_that_was_cut_fails_and_what_had_not_begun_goes_on_elsewhere() -> None:
    async def main() -> None:
        async with started(stand_in(kind="chat"), stand_in(kind="chat")) as fleet:
            home, other = fleet.home(CHAT)
            home.trouble, home.after = "cut", 10
            with pytest.raises(UpstreamError, match="cut its answer short"):
                await chunks_of(fleet.engine, CHAT)
            assert other.bodies == []

    run(main)


@pytest.mark.parametrize(("room", "sampling"), [(12, Sampling()), (300, Sampling(max_tokens=12))])
def test_a_sample_that_was_lost_at_its_limit_needs_no_other_replica(room: int, sampling: Sampling) -> None:
    upstream = stand_in(max_model_len=len(QUESTION) + room, ignores=frozenset({"max_tokens"}))

    async def main() -> None:
        async with started(upstream, replace(upstream, requests=[])) as fleet:
            home, other = fleet.home()
            home.trouble, home.after = "cut", 12
            (sample,) = await samples_of(fleet.engine, sampling=sampling)
            assert (sample.text, sample.finish_reason, other.bodies) == (STORY[:12], "length", [])

    run(main)


@pytest.mark.parametrize("seed", [None, 7])
def test_closing_the_iterator_stops_the_upstreams_also_in_a_rest(seed: int | None) -> None:
    async def main() -> None:
        async with started(stand_in(token_s=0.005), stand_in(token_s=0.005)) as fleet:
            home, other = fleet.home()
            home.trouble, home.after = "cut", 10
            chunks = fleet.engine.generate(IDS, replace(LONG, seed=seed), 2)
            async for _ in chunks:
                if other.tokens:
                    break
            assert other.live
            assert fleet.replica(other).live
            await chunks.aclose()
            await until(lambda: not other.live and not home.live)
            assert not fleet.replica(other).live

    run(main)


def test_a_replica_that_keeps_failing_is_left_alone() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in()) as fleet:
            home, _ = fleet.home()
            home.failures = [Failure(500)] * 10
            asked = [Prompt(token_ids=(*IDS.token_ids, *range(i))) for i in range(8)]
            for prompt in asked:
                fleet.engine._homes._homes.clear()
                await samples_of(fleet.engine, prompt)
            assert len(home.bodies) <= 3
            assert (len(home.bodies) == 3) is not fleet.replica(home).healthy
            assert fleet.engine.healthy

    run(main)


def test_a_replica_that_health_checks_fail_is_left_alone() -> None:
    async def main() -> None:
        async with started(stand_in(), stand_in(), check_s=0.02) as fleet:
            home, _ = fleet.home()
            await until(lambda: any(path == "/v1/models" for path, _ in home.requests))
            home.key = "changed"
            await until(lambda: not fleet.replica(home).healthy)
            home.key = None
            await until(lambda: fleet.replica(home).healthy)

    run(main)


STEPS = "First the sea.\n\nThen the ships.\n\nThey are \\boxed{many}."


def steps(body: Body, index: int) -> str:
    """Steps from wherever they were left."""
    return STEPS[len("".join(map(chr, body["prompt"])).partition("<assistant>")[2]) :]


@pytest.mark.parametrize("strategy", [{"strategy": "beam_search", "n": 4, "beam_width": 2}, {"strategy": "best_of_n"}])
def test_a_search_over_http_outlives_a_replica_that_dies_and_its_usage_is_exact(strategy: dict[str, Any]) -> None:
    body = {"model": "stand-in", "messages": list(CHAT.messages), "max_tokens": 100, "tts": strategy}

    async def ask(die: bool) -> tuple[dict[str, Any], Fleet]:
        async with started(stand_in(reply=steps, piece=3), stand_in(reply=steps, piece=3)) as fleet:
            home, _ = fleet.home()
            if die:
                home.trouble, home.after = "cut", 9
            async with serving(fleet.engine, [FakePRM()]) as client:
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
                return answer.json(), fleet

    async def main() -> None:
        whole, _ = await ask(die=False)
        survived, fleet = await ask(die=True)
        told = [reply["choices"][0]["message"]["content"] for reply in (whole, survived)]
        assert told == [STEPS, STEPS]
        counts = [reply["tts"]["usage"]["completion_tokens"] for reply in (whole, survived)]
        assert counts[0] == counts[1] > len(STEPS)
        home, other = sorted(fleet.stand_ins, key=lambda each: each.trouble is None)
        assert fleet.replica(home).failovers > 0
        # Of the lost requests, what they told: nine frames each.
        lost = sum(frames(body) for body in home.bodies)
        assert counts[1] == lost + other.tokens

    def frames(body: Body) -> int:
        return min(9 * 3, body.get("n", 1) * len(steps(body, 0).split("\n\n")[0] + "\n\n"))

    run(main)
