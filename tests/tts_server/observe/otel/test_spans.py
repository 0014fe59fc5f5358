"""Spans: a request's, its search's, and those of each call, one below the other, with what they cost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from metered import value
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prefixes import ByteFamily
from pydantic import SecretStr
from reward_server import RewardServer
from searching import world
from serving import ask, frames, serving, until
from upstream import StandIn

import strategies
from prm import FakePRM, FamilyPRM, ProcessRewardModel
from prm.families.contract import Classes
from tts_server.config import Settings
from tts_server.engines.base import ServedEngine
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.errors import UpstreamError
from tts_server.observe.otel.spans import Tracing
from tts_server.prm_serving.memory import Remembered
from tts_server.prm_serving.remote import RemoteReader
from tts_server.upstream.client import Upstream

SECRET = "marker-of-what-was-asked"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Seen:
    """The spans of a server."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


def below(span: ReadableSpan, above: ReadableSpan) -> bool:
    return bool(span.parent and above.context and span.parent.span_id == above.context.span_id)


def total(spans: Sequence[ReadableSpan], name: str) -> int:
    return sum(int((span.attributes or {})[name]) for span in spans)  # type: ignore[arg-type]


@asynccontextmanager
async def traced(
    engine: ServedEngine | None = None,
    prms: Sequence[ProcessRewardModel] = (),
    settings: Settings | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[tuple[httpx.AsyncClient, Seen]]:
    seen = Seen()
    async with serving(engine, prms, settings, headers, tracing=seen.tracing) as client:
        yield client, seen


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", strategies.registry())
def test_a_request_its_search_and_its_calls_are_one_tree_whose_tokens_agree(name: str, stream: bool) -> None:
    async def main() -> None:
        entry = strategies.get(name)
        few = {"n": 4} if "n" in entry.options.model_fields else {}
        fields = {"tts": {"strategy": name, **few}, "seed": 1}
        async with traced(FakeEngine(world()), [FakePRM()]) as (client, seen):
            if stream:
                chunks = await frames(client, **fields)
                tts = next(chunk["tts"] for chunk in chunks if "tts" in chunk)
            else:
                tts = (await ask(client, **fields)).raise_for_status().json()["tts"]
            await until(lambda: bool(seen.named("POST /v1/chat/completions")))
        request, search = seen.one("POST /v1/chat/completions"), seen.one(f"search {name}")
        calls, scorings = seen.named("generate"), seen.named("score")
        assert len(seen.all) == 2 + len(calls) + len(scorings)
        assert request.parent is None
        assert request.kind is SpanKind.SERVER
        assert below(search, request)
        assert all(below(call, search) for call in [*calls, *scorings])
        usage = tts["usage"]
        for spans in (calls, [search]):
            assert total(spans, "gen_ai.usage.output_tokens") == usage["completion_tokens"]
            assert total(spans, "gen_ai.usage.input_tokens") == usage["engine_prompt_tokens"]
            assert total(spans, "tts.cached_prompt_tokens") == usage["cached_prompt_tokens"]
        assert total(calls, "gen_ai.request.choice.count") >= tts["samples"]
        assert total(scorings, "tts.prm_tokens") == total([search], "tts.prm_tokens") == usage["prm_tokens"]
        assert len(scorings) == usage["prm_calls"]
        assert (search.attributes or {})["tts.trace_id"] == tts["trace_id"]
        assert (request.attributes or {})["http.response.status_code"] == 200

    asyncio.run(main())


def test_the_caller_s_trace_goes_on_here_and_in_the_upstream() -> None:
    async def main() -> None:
        stand_in = StandIn()
        async with stand_in.serve() as url:
            engine = OpenAIEngine(url)
            await engine.start()
            try:
                async with traced(engine) as (client, seen):
                    stand_in.forget()
                    headers = {"traceparent": CALLER, "tracestate": "vendor=1"}
                    asked = {"model": engine.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
                    await client.post("/v1/chat/completions", json=asked, headers=headers)
                    await client.post("/v1/chat/completions", json={**asked, "n": 2, "seed": 3}, headers=headers)
                    await until(lambda: len(seen.named("POST /v1/chat/completions")) == 2)
            finally:
                await engine.close()
        for span in seen.all:
            assert span.context
            assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
        request = seen.named("POST /v1/chat/completions")[0]
        assert request.parent
        assert f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
        one, two = (f"{span.context.span_id:016x}" for span in seen.named("generate") if span.context)
        told = [place for path, place in stand_in.places if path.endswith("completions")]
        # Two samples with a seed are two requests of one call.
        assert [place.split("-")[2] for place in told] == [one, two, two]
        assert {place.split("-")[1] for place in told} == {CALLER.split("-")[1]}
        assert set(stand_in.states) == {"vendor=1"}

    asyncio.run(main())


def test_a_reward_model_s_server_gets_the_trace_as_well() -> None:
    async def main() -> None:
        server = RewardServer()
        async with server.serve() as url:
            reader = RemoteReader(Upstream(url), "m", Classes(right=1))
            await reader.start()
            prm = FamilyPRM(ByteFamily(), Remembered(reader), "remote")
            server.places.clear()
            async with traced(FakeEngine(world()), [prm]) as (client, seen):
                answer = await ask(client, tts={"strategy": "best_of_n", "n": 2})
                assert answer.raise_for_status().json()["tts"]["usage"]["prm_calls"] == 1
                await until(lambda: bool(seen.named("POST /v1/chat/completions")))
                assert await value(client, "tts_upstream_up", upstream=url) == 1
            await reader.close()
        place = seen.one("score").context
        assert place
        assert {told.rpartition("-")[0] for told in server.places} == {f"00-{place.trace_id:032x}-{place.span_id:016x}"}

    asyncio.run(main())


def test_without_tracing_no_header_is_added() -> None:
    async def main() -> None:
        stand_in = StandIn()
        async with stand_in.serve() as url:
            engine = OpenAIEngine(url)
            await engine.start()
            async with serving(engine) as client:
                asked = {"model": engine.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
                await client.post("/v1/chat/completions", json=asked, headers={"traceparent": CALLER})
            await engine.close()
        assert {place for _, place in stand_in.places} == {""}

    asyncio.run(main())


def test_a_sampled_flag_that_is_off_is_kept() -> None:
    async def main() -> None:
        async with traced() as (client, seen):
            await client.get("/v1/models", headers={"traceparent": CALLER.removesuffix("01") + "00"})
            await client.get("/v1/models", headers={"traceparent": "nonsense"})
            await until(lambda: bool(seen.all))
            (span,) = seen.all
            assert span.parent is None

    asyncio.run(main())


def test_nothing_of_what_was_asked_and_answered_is_in_a_span() -> None:
    def failing(request: FakeRequest) -> str:
        if "fail" in request.text:
            raise UpstreamError(SECRET)
        return SECRET

    async def main() -> None:
        async with traced(FakeEngine(failing), [FakePRM()]) as (client, seen):
            for text in (SECRET, f"fail {SECRET}"):
                chat = [{"role": "user", "content": text}]
                await ask(client, messages=chat, tts={"strategy": "best_of_n", "n": 2}, user=SECRET, stop=["?"])
            await until(lambda: len(seen.named("POST /v1/chat/completions")) == 2)
        assert SECRET not in "".join(span.to_json() for span in seen.all)
        failed = [span for span in seen.all if span.status.status_code is StatusCode.ERROR]
        assert {span.name for span in failed} == {"generate", "search best_of_n", "POST /v1/chat/completions"}
        kinds = {(span.attributes or {}).get("error.type") for span in failed}
        assert "UpstreamError" in kinds

    asyncio.run(main())


def test_a_client_that_leaves_ends_every_span() -> None:
    def long(request: FakeRequest) -> str:
        return "step by step\n\n" * 200

    async def main() -> None:
        engine = FakeEngine(long, token_s=0.01)
        async with traced(engine) as (client, seen):
            asked = asyncio.create_task(ask(client, n=4))
            await until(lambda: engine.live == 4 and engine.generated > 8)
            asked.cancel()
            await until(lambda: bool(seen.named("POST /v1/chat/completions")))
            call, request = seen.one("generate"), seen.one("POST /v1/chat/completions")
            assert (request.attributes or {})["http.response.status_code"] == 499
            assert (call.attributes or {})["tts.aborted_samples"] == 4
            assert total([call], "gen_ai.usage.output_tokens") == engine.generated

    asyncio.run(main())


def test_searches_that_run_at_once_have_their_own_calls() -> None:
    async def main() -> None:
        async with traced(FakeEngine(world()), [FakePRM()]) as (client, seen):
            tts = {"strategy": "beam_search", "n": 4}
            answers = await asyncio.gather(*(ask(client, tts=tts, seed=seed) for seed in range(6)))
            await until(lambda: len(seen.named("POST /v1/chat/completions")) == 6)
        searches = {(s.attributes or {})["tts.trace_id"]: s for s in seen.named("search beam_search")}
        for answer in answers:
            told = answer.json()["tts"]
            calls = [call for call in seen.named("generate") if below(call, searches[told["trace_id"]])]
            assert total(calls, "gen_ai.usage.output_tokens") == told["usage"]["completion_tokens"]

    asyncio.run(main())


def test_who_has_no_key_and_who_probes_begin_no_span() -> None:
    async def main() -> None:
        settings = Settings(api_keys=SecretStr("sk-1"))
        async with traced(settings=settings) as (client, seen):
            assert (await ask(client)).status_code == 401
            await client.get("/health")
            await client.get("/metrics")
            assert seen.all == ()

    asyncio.run(main())


def test_scores_without_a_search_are_traced() -> None:
    async def main() -> None:
        async with traced(prms=[FakePRM()]) as (client, seen):
            asked: dict[str, Any] = {"question": "What is 2 + 2?", "steps": ["It is 4."]}
            usage = (await client.post("/v1/prm/score", json=asked)).raise_for_status().json()["usage"]
            await until(lambda: bool(seen.named("POST /v1/prm/score")))
            assert below(seen.one("score"), seen.one("POST /v1/prm/score"))
            assert total(seen.named("score"), "tts.prm_tokens") == usage["prm_tokens"]

    asyncio.run(main())
