"""How things are is read from whoever knows it, whenever somebody looks."""

import asyncio
from collections import Counter
from typing import Any

from metered import samples, value
from serving import ask, serving, until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from upstream import StandIn

from prm import FakePRM
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.observe.metrics.counts import Metrics
from tts_server.observe.metrics.gauges import Now, Watched

VLLM = (
    "# HELP vllm:num_requests_running Running.\n# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 3\n"
)


class Part:
    """An engine, a queue, and whoever asks upstreams."""

    model = "m"
    healthy = True
    restarts = 2
    given_up = False
    waiting = 5
    limit = 64
    up = {"http://a": True, "http://b": False}  # noqa: RUF012  nobody changes it


class Other:
    """An upstream."""

    def __init__(self, origin: str, healthy: bool = True, **failed: int) -> None:
        self.origin = origin
        self.healthy = healthy
        self.retried = 3
        self.failed = Counter(failed)


class Replica(Other):
    failovers = 4


def shown(*upstreams: Other, part: Any = None) -> dict[str, dict[tuple[str, ...], float]]:
    """By name, the value of each set of labels."""
    metrics, part = Metrics(), part or Part()
    Now(metrics, Watched(part, part, ["p"], lambda: upstreams, lambda: 7, part))
    told: dict[str, dict[tuple[str, ...], float]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            told.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return told


def test_the_parts_are_shown() -> None:
    told = shown()
    assert told["tts_engine_up"] == {(): 1}
    assert told["tts_engine_restarts_total"] == {(): 2}
    assert told["tts_queue_depth"] == {(): 5}
    assert told["tts_sample_limit"] == {(): 64}
    assert told["tts_traces_dropped_total"] == {(): 7}
    assert told["tts_upstream_metrics_up"] == {("http://a",): 1, ("http://b",): 0}
    ((labels, one),) = told["tts_build_info"].items()
    assert (labels[1:], one) == (("m", "p"), 1)


def test_upstreams_are_shown_by_where_they_are() -> None:
    told = shown(
        Replica("http://a", connect=1, timeout=2), Other("http://b"), Other("http://a", healthy=False, connect=4)
    )
    assert told["tts_upstream_up"] == {("http://a",): 0, ("http://b",): 1}
    assert told["tts_upstream_errors_total"] == {("http://a", "connect"): 5, ("http://a", "timeout"): 2}
    assert told["tts_upstream_retries_total"] == {("http://a",): 6, ("http://b",): 3}
    assert told["tts_upstream_failovers_total"] == {("http://a",): 4}


def test_calls_that_wait_for_their_turn_are_counted() -> None:
    def long(request: FakeRequest) -> str:
        return "word " * 20

    async def main() -> None:
        engine = FakeEngine(long, token_s=0.002)
        async with serving(engine, settings=Settings(max_live_samples=2)) as client:
            asked = [asyncio.create_task(ask(client, n=2)) for _ in range(3)]
            await until(lambda: engine.live == 2)
            while await value(client, "tts_queue_depth") < 4:  # noqa: ASYNC110  only asking tells
                await asyncio.sleep(0.001)
            assert await value(client, "tts_sample_limit") == 2
            await asyncio.gather(*asked)
            assert await value(client, "tts_queue_depth") == 0
            assert await value(client, "tts_queue_wait_seconds_count") == 2
            assert 0 < await value(client, "tts_queue_wait_seconds_sum") < 10

    asyncio.run(main())


class Telling(StandIn):
    """An upstream that has metrics."""

    def app(self) -> Starlette:
        told = Route("/metrics", lambda request: PlainTextResponse(VLLM))
        return Starlette(routes=[told, Mount("/", super().app())])


def test_the_upstream_s_metrics_and_what_is_counted_of_it() -> None:
    async def main() -> None:
        async with Telling().serve() as url:
            engine = OpenAIEngine(url)
            await engine.start()
            try:
                async with serving(engine, [FakePRM()]) as client:
                    found = {sample.name: sample for sample in await samples(client)}
                    assert found["vllm:num_requests_running"].labels == {"upstream": url}
                    assert found["vllm:num_requests_running"].value == 3
                    assert found["tts_upstream_metrics_up"].labels == {"upstream": url}
                    assert found["tts_upstream_up"].value == found["tts_upstream_metrics_up"].value == 1
                    assert found["tts_upstream_retries_total"].value == 0
            finally:
                await engine.close()

    asyncio.run(main())


def test_an_upstream_without_metrics_is_asked_once() -> None:
    async def main() -> None:
        stand_in = StandIn()
        async with stand_in.serve() as url:
            engine = OpenAIEngine(url)
            await engine.start()
            try:
                async with serving(engine) as client:
                    for _ in range(2):
                        assert await value(client, "tts_upstream_metrics_up") == 0
                        assert await value(client, "tts_upstream_errors_total") == 0
            finally:
                await engine.close()

    asyncio.run(main())
