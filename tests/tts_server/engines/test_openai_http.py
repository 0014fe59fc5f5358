import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from serving import until
from upstream import Failure, StandIn

from strategies.core.contracts import Chunk, Prompt, Refused, Sample, Sampling
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.errors import ContextTooLong, EngineUnavailable, InvalidRequest, UpstreamError

CHAT = Prompt(messages=({"role": "user", "content": "2 + 2?"},))
IDS = Prompt(token_ids=tuple(map(ord, "2 + 2 =")))
KEY = "sk-very-secret"
PLAIN = Sampling()


@asynccontextmanager
async def started(upstream: StandIn, **options: Any) -> AsyncIterator[OpenAIEngine]:
    """An engine over the stand-in, whose counters begin after the start-up questions."""
    async with upstream.serve() as url:
        engine = OpenAIEngine(url, **{"backoff_s": 0.01, "check_s": 0.02} | options)
        await engine.start()
        upstream.forget()
        try:
            yield engine
        finally:
            await engine.close()


async def chunks_of(engine: OpenAIEngine, prompt: Prompt, sampling: Sampling = PLAIN, n: int = 1) -> list[Chunk]:
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        return [chunk async for chunk in chunks]


async def samples_of(engine: OpenAIEngine, prompt: Prompt, sampling: Sampling = PLAIN, n: int = 1) -> list[Sample]:
    samples = [Sample() for _ in range(n)]
    for chunk in await chunks_of(engine, prompt, sampling, n):
        assert samples[chunk.index].finish_reason is None
        samples[chunk.index].chunks.append(chunk)
    assert all(sample.finish_reason for sample in samples)
    return samples


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@pytest.fixture(params=["vllm", "chat"])
def upstream(request: pytest.FixtureRequest) -> StandIn:
    return StandIn(kind=request.param)


def test_start_finds_what_a_vllm_can_do() -> None:
    async def main() -> None:
        async with started(StandIn(), name="mine") as engine:
            assert (engine.model, engine.max_model_len, engine.continues, engine.healthy) == ("mine", 200, True, True)
        assert not engine.healthy

    run(main)


def test_start_finds_that_another_upstream_only_chats() -> None:
    async def main() -> None:
        async with started(StandIn(kind="chat"), upstream_model="other") as engine:
            assert (engine.model, engine.max_model_len, engine.continues) == ("other", None, False)
            with pytest.raises(Refused, match="token ids"):
                await engine.encode(CHAT)
            with pytest.raises(Refused, match="token ids"):
                await chunks_of(engine, IDS)

    run(main)


@pytest.mark.parametrize(
    "half",
    [StandIn(ignores=frozenset({"return_token_ids"})), StandIn(refuses=frozenset({"prompt"}))],
    ids=["tells no ids", "takes no ids"],
)
def test_start_takes_half_a_vllm_for_a_chat(half: StandIn) -> None:
    async def main() -> None:
        async with started(half) as engine:
            assert not engine.continues
            assert (await samples_of(engine, CHAT))[0].text

    run(main)


@pytest.mark.parametrize("api", ["/v1", ""])
@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_start_takes_the_url_with_and_without_v1(api: str, suffix: str) -> None:
    async def main() -> None:
        async with StandIn(api=api).serve() as url:
            engine = OpenAIEngine(url + suffix)
            await engine.start()
            assert engine.continues
            await engine.close()

    run(main)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host", "", "http://host:x", "http://host:99999", "http://[::1"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="upstream's URL"):
        OpenAIEngine(url)


def test_start_fails_with_a_sentence() -> None:
    async def fails(upstream: StandIn, words: str, **options: Any) -> None:
        async with upstream.serve() as url:
            engine = OpenAIEngine(url, **options)
            with pytest.raises(UpstreamError, match=words) as caught:
                await engine.start()
            assert KEY not in caught.value.message
            assert not engine.healthy

    async def main() -> None:
        await fails(StandIn(), "does not serve 'gone'; it serves: stand-in, other", upstream_model="gone")
        await fails(StandIn(models=()), "does not serve None; it serves: nothing")
        await fails(StandIn(key="other"), "refuses the API key", api_key=KEY)
        await fails(StandIn(key="other"), "refuses calls without an API key")
        await fails(StandIn(api="/elsewhere"), "neither /v1/models nor /models")
        await fails(StandIn(kind="chat", hang=True), "did not answer within 0.2 s", start_timeout_s=0.2)
        await fails(StandIn(kind="chat", refuses=frozenset({"messages"})), "Unsupported parameter: 'messages'")
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await OpenAIEngine("http://127.0.0.1:9").start()

    run(main)


def test_the_key_goes_to_the_upstream_only_as_its_header() -> None:
    upstream = StandIn(key=KEY)

    async def main() -> None:
        async with started(upstream, api_key=KEY) as engine:
            await samples_of(engine, CHAT)
        assert upstream.keys == {f"Bearer {KEY}"}
        assert KEY not in str(upstream.requests)

    run(main)


def test_a_redirect_is_not_followed(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(307, headers={"location": "http://127.0.0.1:9/"})]
            with pytest.raises(UpstreamError, match="status 307"):
                await chunks_of(engine, CHAT)

    run(main)


def test_a_sample_is_what_the_upstream_said(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            (sample,) = await samples_of(engine, CHAT, Sampling(max_tokens=50))
            assert sample.text == "So.\n\nIt is 0"
            assert len(sample.pieces) == sample.completion_tokens == upstream.tokens == 12
            assert sample.finish_reason == "eos"
            prompt_tokens = [chunk.prompt_tokens for chunk in sample.chunks]
            assert prompt_tokens[0] == len("<user>2 + 2?\n<assistant>") if engine.continues else 11
            assert not any(prompt_tokens[1:])
            assert sample.token_ids == (tuple(map(ord, sample.text)) if engine.continues else ())

    run(main)


def test_n_samples_are_one_request(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            samples = await samples_of(engine, CHAT, Sampling(max_tokens=50), 3)
            assert [sample.text[-1] for sample in samples] == ["0", "1", "2"]
            assert sum(sample.completion_tokens for sample in samples) == upstream.tokens
            assert [body["n"] for body in upstream.bodies] == [3]

    run(main)


@pytest.mark.parametrize("how", ["refuses", "ignores"])
def test_an_upstream_without_n_gets_a_request_a_sample(upstream: StandIn, how: str) -> None:
    async def main() -> None:
        async with started(replace(upstream, **{how: frozenset({"n"})})) as engine:
            samples = await samples_of(engine, CHAT, Sampling(max_tokens=50), 3)
            assert [sample.text for sample in samples] == ["So.\n\nIt is 0"] * 3

    run(main)


def test_seeded_samples_get_a_seed_each_and_repeat(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            sampling = Sampling(max_tokens=50, seed=2**63 - 1)
            first, again = [await samples_of(engine, CHAT, sampling, 3) for _ in range(2)]
            assert sorted(body["seed"] for body in upstream.bodies[:3]) == [-(2**63), 1 - 2**63, 2**63 - 1]
            assert [sample.text for sample in first] == [sample.text for sample in again]
            assert len({sample.text for sample in first}) == 3

    run(main)


def test_a_continuation_sends_the_token_ids_as_they_are() -> None:
    upstream = StandIn()

    async def main() -> None:
        async with started(upstream) as engine:
            (sample,) = await samples_of(engine, IDS, Sampling(stop=("\n\n",), include_stop=True))
            assert [body["prompt"] for body in upstream.bodies] == [list(IDS.token_ids)]
            assert (sample.text, sample.finish_reason, sample.chunks[-1].stop) == ("So.\n\n", "stop", "\n\n")
            assert len(upstream.requests) == 1

    run(main)


def test_encode_renders_with_the_upstreams_template() -> None:
    upstream = StandIn()

    async def main() -> None:
        async with started(upstream) as engine:
            assert await engine.encode(IDS) == IDS.token_ids

            async def text(**template: Any) -> str:
                return "".join(map(chr, await engine.encode(replace(CHAT, template=template))))

            assert await text() == "<user>2 + 2?\n<assistant>"
            assert await text(add_generation_prompt=False, thinking=1) == "<user>2 + 2?\n[thinking=1]"
            assert await text(continue_final_message=True) == "<user>2 + 2?"

    run(main)


def test_every_field_reaches_a_vllm() -> None:
    upstream = StandIn()
    sampling = Sampling(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        logit_bias={5: -1.0},
        seed=3,
        stop=("x", "y"),
        include_stop=True,
        stop_token_ids=(4,),
        min_tokens=2,
        ignore_eos=True,
        logprobs=2,
        structured={"type": "json_object"},
        bad_words=("z",),
        allowed_token_ids=(6, 7),
        cache_salt="salt",
    )

    async def main() -> None:
        async with started(upstream) as engine:
            await chunks_of(engine, IDS, sampling)
            assert upstream.bodies == [
                {
                    "model": "stand-in",
                    "prompt": list(IDS.token_ids),
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "return_token_ids": True,
                    "max_tokens": 9,
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "top_k": 7,
                    "min_p": 0.1,
                    "presence_penalty": 0.2,
                    "frequency_penalty": 0.3,
                    "repetition_penalty": 1.1,
                    "logit_bias": {"5": -1.0},
                    "seed": 3,
                    "stop": ["x", "y"],
                    "include_stop_str_in_output": True,
                    "stop_token_ids": [4],
                    "min_tokens": 2,
                    "ignore_eos": True,
                    "logprobs": 2,
                    "response_format": {"type": "json_object"},
                    "bad_words": ["z"],
                    "allowed_token_ids": [6, 7],
                    "cache_salt": "salt",
                }
            ]

    run(main)


TAG = {"type": "structural_tag", "format": {"type": "json_schema", "json_schema": {}}}


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        ({"type": "choice", "choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"type": "regex", "regex": "[0-9]+"}, {"regex": "[0-9]+"}),
        ({"type": "grammar", "grammar": "root ::= 'a'"}, {"grammar": "root ::= 'a'"}),
        (TAG, {"structural_tag": json.dumps(TAG)}),
    ],
    ids=lambda case: next(iter(case)),
)
def test_what_response_format_has_no_word_for_reaches_a_vllm_alone(structured: Any, sent: Any) -> None:
    async def main() -> None:
        upstream = StandIn()
        async with started(upstream) as engine:
            await chunks_of(engine, IDS, Sampling(structured=structured))
            (body,) = upstream.bodies
            assert body["structured_outputs"] == sent
            assert "response_format" not in body
        async with started(StandIn(kind="chat")) as engine:
            with pytest.raises(Refused) as caught:
                await chunks_of(engine, CHAT, Sampling(structured=structured))
            assert caught.value.param == "structured_outputs"

    run(main)


@pytest.mark.parametrize(("roles", "shown"), [({"system", "user"}, "system"), ({"developer", "user"}, "developer")])
def test_a_developers_words_are_in_the_prompt_whatever_the_upstreams_template_knows(roles: Any, shown: str) -> None:
    chat = Prompt(({"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi."}))

    async def main() -> None:
        upstream = StandIn(roles=frozenset(roles))
        async with started(upstream) as engine:
            for _ in range(2):
                assert "".join(map(chr, await engine.encode(chat))) == f"<{shown}>Be brief.\n<user>Hi.\n<assistant>"
            # It is asked once what the template makes of the role.
            assert len(upstream.requests) == 3

    run(main)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_every_field_of_plain_chat_reaches_it_and_no_other(field: str) -> None:
    upstream = StandIn(kind="chat", limit_field=field, continuous=False)
    neutral = Sampling(top_k=-1, min_p=0.0, repetition_penalty=1.0, min_tokens=0)
    sampling = replace(
        neutral, max_tokens=9, temperature=0.5, top_p=0.9, seed=3, stop=("x",), logprobs=1, structured={"type": "text"}
    )

    async def main() -> None:
        async with started(upstream) as engine:
            await chunks_of(engine, replace(CHAT, template={"add_generation_prompt": True}), sampling)
            assert upstream.bodies == [
                {
                    "model": "stand-in",
                    "messages": list(CHAT.messages),
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    field: 9,
                    "temperature": 0.5,
                    "top_p": 0.9,
                    "seed": 3,
                    "stop": ["x"],
                    "logprobs": True,
                    "top_logprobs": 1,
                    "response_format": {"type": "text"},
                }
            ]

    run(main)


@pytest.mark.parametrize(
    "field",
    [
        {"top_k": 5},
        {"min_p": 0.1},
        {"repetition_penalty": 1.2},
        {"min_tokens": 1},
        {"ignore_eos": True},
        {"stop_token_ids": (1,)},
        {"include_stop_str_in_output": True},
        {"bad_words": ("x",)},
        {"allowed_token_ids": (1,)},
        {"cache_salt": "salt"},
        {"logprob_token_ids": (1,)},
        {"logprobs": 0},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_plain_chat_has_no_field_for_is_refused(field: dict[str, Any]) -> None:
    upstream = StandIn(kind="chat", refuses=frozenset({"logprobs"}))

    async def main() -> None:
        async with started(upstream) as engine:
            names = {"include_stop_str_in_output": "include_stop"}
            sampling = Sampling(**{names.get(name, name): value for name, value in field.items()})
            with pytest.raises(Refused) as caught:
                await chunks_of(engine, CHAT, sampling)
            assert caught.value.param in field
            with pytest.raises(Refused) as caught:
                await chunks_of(engine, replace(CHAT, template={"continue_final_message": True}))
            assert caught.value.param == "continue_final_message"
            assert not upstream.requests

    run(main)


def test_no_limit_is_the_rest_of_the_context() -> None:
    upstream = StandIn(max_model_len=20, reply=lambda body, index: "long" * 100)

    async def main() -> None:
        async with started(upstream) as engine:
            for wanted in (None, 1000):
                (sample,) = await samples_of(engine, IDS, Sampling(max_tokens=wanted))
                assert (sample.completion_tokens, sample.finish_reason) == (20 - len(IDS.token_ids), "length")
            with pytest.raises(ContextTooLong, match=r"is 20 tokens.*resulted in 20 tokens"):
                await chunks_of(engine, Prompt(token_ids=(1,) * 20))

    run(main)


def test_logprobs_of_the_likeliest_and_of_chosen_tokens() -> None:
    async def main() -> None:
        async with started(StandIn()) as engine:
            (sample,) = await samples_of(engine, IDS, Sampling(max_tokens=2, logprobs=3))
            first = sample.logprobs[0]
            assert (first.token, first.token_id, first.logprob) == ("S", ord("S"), -0.5)
            assert [(top.token, top.logprob) for top in first.top] == [("0", -1.0), ("1", -2.0), ("2", -3.0)]
            chosen = Sampling(max_tokens=1, logprobs=2, logprob_token_ids=(7, 65))
            (sample,) = await samples_of(engine, IDS, chosen)
            assert [(top.token_id, top.logprob) for top in sample.logprobs[0].top] == [(7, -1.0), (65, -2.0)]
            (sample,) = await samples_of(engine, IDS, Sampling(max_tokens=1, logprobs=0))
            assert sample.logprobs[0].top == ()
        async with started(StandIn(kind="chat")) as engine:
            (sample,) = await samples_of(engine, CHAT, Sampling(max_tokens=2, logprobs=2))
            assert [[top.token for top in logprob.top] for logprob in sample.logprobs] == [["a", "b"]] * 2
        async with started(StandIn(ignores=frozenset({"logprob_token_ids"}))) as engine:
            with pytest.raises(Refused, match="logprob_token_ids"):
                await chunks_of(engine, IDS, chosen)

    run(main)


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("piece", [1, 3])
def test_tokens_are_exact_in_total(upstream: StandIn, piece: int, continuous: bool) -> None:
    upstream = replace(upstream, piece=piece, continuous=continuous, cached=5, reasoning="hm")

    async def main() -> None:
        async with started(upstream) as engine:
            samples = await samples_of(engine, CHAT, Sampling(max_tokens=50), 2)
            assert sum(sample.completion_tokens for sample in samples) == upstream.tokens
            # Thinking is in a chat's text as a model itself would mark it.
            assert all(sample.text.startswith("<think>hm</think>") != engine.continues for sample in samples)
            chunks = [chunk for sample in samples for chunk in sample.chunks]
            assert sum(chunk.cached_tokens for chunk in chunks) == 5
            told = sum(chunk.prompt_tokens > 0 for chunk in chunks)
            assert told == (2 if continuous or engine.continues else 1)

    run(main)


def test_an_upstream_without_usage_is_counted_by_its_pieces() -> None:
    upstream = StandIn(kind="chat", refuses=frozenset({"stream_options"}))

    async def main() -> None:
        async with started(upstream) as engine:
            (sample,) = await samples_of(engine, CHAT)
            assert sample.completion_tokens == upstream.tokens == 12
            assert "stream_options" not in upstream.bodies[0]

    run(main)


def test_bytes_that_trickle_in_make_the_same_answer(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(replace(upstream, trickle=True)) as engine:
            assert (await samples_of(engine, CHAT, Sampling(max_tokens=50)))[0].text == "So.\n\nIt is 0"

    run(main)


@pytest.mark.parametrize("trouble", ["cut", "garbage", "error", "silence", "abort", "hang"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_that_breaks_fails_the_call_and_is_not_asked_again(upstream: StandIn, trouble: Any, n: int) -> None:
    async def main() -> None:
        async with started(upstream, read_timeout_s=0.5 if trouble == "hang" else 600.0) as engine:
            upstream.trouble = trouble
            with pytest.raises(UpstreamError):
                await chunks_of(engine, CHAT, Sampling(max_tokens=50), n)
            assert len(upstream.bodies) == 1
            upstream.trouble = None
            assert (await samples_of(engine, CHAT))[0].text

    run(main)


def test_samples_that_were_finished_outlive_a_cut(upstream: StandIn) -> None:
    upstream.reply = lambda body, index: "ab" if index == 1 else "a long answer"

    async def main() -> None:
        async with started(upstream) as engine:
            upstream.trouble, upstream.after = "cut", 12
            long, short = await samples_of(engine, CHAT, Sampling(max_tokens=50), 2)
            assert (short.text, short.finish_reason) == ("ab", "eos")
            assert long.finish_reason == "error"
            assert isinstance(long.chunks[-1].error, UpstreamError)
            assert long.completion_tokens == len(long.text) > 2

    run(main)


def test_one_failed_request_of_several_is_one_failed_sample(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.broken = {11: Failure(500, {"error": {"message": "broken"}})}
            sampling = Sampling(max_tokens=50, seed=10)
            samples = await samples_of(engine, CHAT, sampling, 3)
            assert [sample.finish_reason for sample in samples] == ["eos", "error", "eos"]
            assert "broken" in str(samples[1].chunks[-1].error)
            upstream.broken = {seed: Failure(500, {"error": {"message": f"broken {seed}"}}) for seed in (10, 11, 12)}
            seen = engine.generate(CHAT, sampling, 3)
            with pytest.raises(UpstreamError, match="broken 1"):
                await anext(seen)
            assert upstream.live == 0

    run(main)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_failure_before_any_token_is_retried(upstream: StandIn, status: int) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(status), Failure(status, headers={"retry-after": "0.01"})]
            assert (await samples_of(engine, CHAT, Sampling(max_tokens=50)))[0].text == "So.\n\nIt is 0"
            assert len(upstream.bodies) == 3
            upstream.failures = [Failure(status, {"error": {"message": "why"}}, {"retry-after": "0"})] * 3
            kind = EngineUnavailable if status == 503 else UpstreamError
            with pytest.raises(kind, match="why"):
                await chunks_of(engine, CHAT)
            assert not upstream.failures

    run(main)


def test_an_upstream_that_wants_a_long_pause_is_not_asked_again(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(503, headers={"retry-after": "3600"})]
            with pytest.raises(EngineUnavailable) as caught:
                await chunks_of(engine, CHAT)
            assert caught.value.headers["Retry-After"] == "3600"
            assert len(upstream.bodies) == 1

    run(main)


VLLM_CONTEXT = (
    "This model's maximum context length is 8 tokens. However, your prompt contains at least 9 input tokens, which "
    "exceeds this limit even without any output tokens."
)
OPENAI_CONTEXT = "This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens."
ENGINE_CONTEXT = "The decoder prompt (length 9) is longer than the maximum model length of 8. Make sure that"
LENGTH_CONTEXT = "Input length (9) exceeds model's maximum context length (8)."


@pytest.mark.parametrize("message", [VLLM_CONTEXT, OPENAI_CONTEXT, ENGINE_CONTEXT, LENGTH_CONTEXT])
def test_a_context_that_is_too_long_is_recognised(upstream: StandIn, message: str) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(400, {"error": {"message": message, "code": 400}})]
            with pytest.raises(ContextTooLong, match=r"is 8 tokens.*in 9 tokens"):
                await chunks_of(engine, CHAT)

    run(main)


def test_a_context_error_without_numbers_keeps_its_code(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(400, {"error": {"message": "too much", "code": "context_length_exceeded"}})]
            with pytest.raises(InvalidRequest, match="too much") as caught:
                await chunks_of(engine, CHAT)
            assert caught.value.body["error"]["code"] == "context_length_exceeded"

    run(main)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no such tool", "param": "tools"}},
        {"error": "no such tool"},
        {"message": "no such tool", "param": "tools", "object": "error"},
        {"detail": "no such tool"},
    ],
)
def test_what_the_upstream_refuses_is_the_clients_error(upstream: StandIn, body: dict[str, Any]) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.failures = [Failure(400, body)]
            with pytest.raises(InvalidRequest, match="no such tool") as caught:
                await chunks_of(engine, CHAT)
            assert caught.value.param == ("tools" if "tools" in str(body) else None)
            assert len(upstream.bodies) == 1

    run(main)


def test_no_error_repeats_the_key(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream, api_key=KEY) as engine:
            for status in (400, 401, 403, 404, 500, 503):
                upstream.failures = [Failure(status, {"error": {"message": f"bad {KEY}"}}, {"retry-after": "60"})]
                with pytest.raises((UpstreamError, InvalidRequest, EngineUnavailable)) as caught:
                    await chunks_of(engine, CHAT)
                assert KEY not in caught.value.message

    run(main)


@pytest.mark.parametrize(("n", "seed"), [(1, None), (3, None), (3, 7)])
def test_closing_the_iterator_stops_the_upstream(upstream: StandIn, n: int, seed: int | None) -> None:
    upstream.reply = lambda body, index: "x" * 150

    async def main() -> None:
        async with started(upstream) as engine:
            upstream.token_s = 0.01
            chunks = engine.generate(CHAT, Sampling(max_tokens=150, seed=seed), n)
            await anext(chunks)
            assert upstream.live
            await chunks.aclose()
            await until(lambda: not upstream.live)
            assert upstream.disconnects == (n if seed else 1)
            generated = upstream.tokens
            await asyncio.sleep(0.05)
            assert upstream.tokens == generated < 150

    run(main)


@pytest.mark.parametrize("seed", [None, 7])
def test_cancelling_the_consumer_stops_the_upstream(upstream: StandIn, seed: int | None) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.trouble = "hang"
            task = asyncio.create_task(chunks_of(engine, CHAT, Sampling(seed=seed), 2))
            await until(lambda: upstream.live > 0 and upstream.tokens > 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not upstream.live)

    run(main)


def test_closing_the_engine_fails_what_runs(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.trouble = "hang"
            task = asyncio.create_task(chunks_of(engine, CHAT))
            await until(lambda: upstream.live > 0 and upstream.tokens > 1)
            await engine.close()
            with pytest.raises(UpstreamError):
                await task
            with pytest.raises(EngineUnavailable):
                await chunks_of(engine, CHAT)
            await until(lambda: not upstream.live)

    run(main)


def test_connections_are_kept(upstream: StandIn) -> None:
    async def main() -> None:
        async with started(upstream) as engine:
            upstream.connections.clear()
            for _ in range(5):
                await asyncio.gather(*(samples_of(engine, CHAT) for _ in range(3)))
            assert len(upstream.connections) <= 3

    run(main)


def test_an_upstream_that_went_away_is_noticed_and_found_again(upstream: StandIn) -> None:
    async def main() -> None:
        async with upstream.serve() as url:
            engine = OpenAIEngine(url, backoff_s=0.01, check_s=0.02)
            await engine.start()
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await chunks_of(engine, CHAT)
        assert not engine.healthy
        async with upstream.serve(int(url.rpartition(":")[2])):
            await until(lambda: engine.healthy)
            assert (await samples_of(engine, CHAT))[0].text
        await engine.close()

    run(main)


def test_an_engine_that_is_not_started_says_so() -> None:
    async def main() -> None:
        engine = OpenAIEngine("http://127.0.0.1:9")
        for call in (lambda: engine.encode(CHAT), lambda: chunks_of(engine, CHAT)):
            awaited: Awaitable[Any] = call()
            with pytest.raises(EngineUnavailable):
                await awaited

    run(main)
