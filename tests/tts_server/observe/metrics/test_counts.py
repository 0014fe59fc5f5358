"""What is counted of requests, and that it agrees with what they are told."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from metered import samples, value
from pydantic import SecretStr
from searching import world
from serving import ask, body, frames, serving, until

import strategies
from prm import FakePRM, PRMError
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.errors import UpstreamError
from tts_server.observe.metrics import families
from tts_server.observe.metrics.counts import Metrics

SECRET = "marker-of-what-was-asked"
USAGE = {
    "prompt_tokens": families.PROMPT,
    "completion_tokens": families.GENERATED,
    "engine_prompt_tokens": families.ENGINE_PROMPT,
    "cached_prompt_tokens": families.CACHED,
    "prm_tokens": families.PRM_TOKENS,
    "prm_calls": families.PRM_CALLS,
    "samples": families.SAMPLES,
}


def long(request: FakeRequest) -> str:
    return "step by step\n\n" * 200


def few(entry: strategies.Entry) -> dict[str, Any]:
    return {"strategy": entry.name} | ({"n": 4} if "n" in entry.options.model_fields else {})


async def fetched(client: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    usage: dict[str, Any] = (await client.get(f"/v1/traces/{id_}")).raise_for_status().json()["usage"]
    return usage


def told(usage: dict[str, Any], tts: dict[str, Any]) -> Counter[str]:
    """What an answer says that it has cost, in the account's words."""
    fields = {name: tts["usage"][name] for name in tts["usage"] if name in USAGE}
    assert fields["completion_tokens"] == usage["completion_tokens"]
    return Counter({**fields, "prompt_tokens": usage["prompt_tokens"], "samples": tts["samples"]})


def test_body_stream_trace_and_metrics_agree_for_every_strategy(tmp_path: Path) -> None:
    async def main() -> None:
        settings = Settings(data_dir=tmp_path, traces="redacted")
        async with serving(FakeEngine(world()), [FakePRM()], settings) as client:
            for name, entry in strategies.registry().items():
                plain = (await ask(client, tts=few(entry), seed=1)).raise_for_status().json()
                chunks = await frames(client, tts=few(entry), seed=2, stream_options={"include_usage": True})
                last = next(chunk["tts"] for chunk in chunks if "tts" in chunk)
                spent = told(plain["usage"], plain["tts"]) + told(chunks[-1]["usage"], last)
                kept = [await fetched(client, tts["trace_id"]) for tts in (plain["tts"], last)]
                counted = await samples(client)
                for field, family in USAGE.items():
                    found = [s.value for s in counted if s.name == family.name and s.labels["strategy"] == name]
                    assert found == [spent[field]] == [sum(usage[field] for usage in kept)], (name, field)
                of_strategy = [s for s in counted if s.labels.get("strategy") == name]
                ended = {s.name: s.value for s in of_strategy if s.name.endswith("_count")}
                assert ended == {"tts_request_duration_seconds_count": 2, "tts_time_to_first_token_seconds_count": 2}

    asyncio.run(main())


def test_what_is_not_returned_is_thrown_away() -> None:
    def script(request: FakeRequest) -> str:
        return r"The answer is \boxed{1}." if request.index < 3 else r"Well, this is \boxed{2}, is it not?"

    async def main() -> None:
        async with serving(FakeEngine(script)) as client:
            answer = (await ask(client, tts={"strategy": "self_consistency", "n": 4, "return_candidates": True})).json()
            generated = answer["usage"]["completion_tokens"]
            returned = answer["tts"]["candidates"][0]["completion_tokens"]
            assert 0 < returned < generated
            lost = await value(client, "tts_discarded_tokens_total", strategy="self_consistency")
            assert lost == generated - returned
            await ask(client)
            assert await value(client, "tts_discarded_tokens_total", strategy="single") == 0

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_counted_with_what_it_has_cost(stream: bool) -> None:
    async def main() -> None:
        engine = FakeEngine(long, token_s=0.01)
        async with serving(engine) as client:
            asked = asyncio.create_task(ask(client, tts={"strategy": "self_consistency", "n": 4}, stream=stream))
            await until(lambda: engine.live == 4 and engine.generated > 8)
            mine = {"strategy": "self_consistency"}
            assert await value(client, "tts_live_samples", **mine) == 4
            assert await value(client, "tts_requests_running", **mine) == 1
            asked.cancel()
            await until(lambda: engine.live == 0)
            while await value(client, "tts_requests_running") > 0:  # noqa: ASYNC110  only asking tells
                await asyncio.sleep(0.01)
            assert await value(client, "tts_live_samples") == 0
            assert await value(client, "tts_requests_total", status="499", **mine) == 1
            assert await value(client, "tts_generated_tokens_total", **mine) == engine.generated
            assert await value(client, "tts_discarded_tokens_total", **mine) == engine.generated
            assert await value(client, "tts_time_to_first_token_seconds_count", **mine) == 0

    asyncio.run(main())


def test_a_stream_that_breaks_off_has_the_status_of_its_error() -> None:
    def failing(request: FakeRequest) -> str:
        raise UpstreamError("gone")

    async def main() -> None:
        async with serving(FakeEngine(failing)) as client:
            assert (await ask(client)).status_code == 502
            assert await value(client, "tts_requests_total", strategy="single", status="502") == 1

        class Breaks(FakeEngine):
            async def generate(self, *args: Any) -> Any:
                async for chunk in super().generate(*args):
                    yield chunk
                    raise UpstreamError("gone")

        async with serving(Breaks(long)) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
                assert response.status_code == 200
                await response.aread()
            assert await value(client, "tts_requests_total", strategy="single", status="502") == 1
            assert await value(client, "tts_requests_total", status="200") == 0

    asyncio.run(main())


def test_what_is_refused_is_counted_by_endpoint_and_status_and_no_label_holds_what_was_sent() -> None:
    async def main() -> None:
        settings = Settings(api_keys=SecretStr("sk-1"))
        async with serving(settings=settings) as client:
            key = {"authorization": "Bearer sk-1"}
            await client.post("/v1/chat/completions", json=body())
            await client.post("/v1/chat/completions", json=body(model=SECRET), headers=key)
            await client.post("/v1/chat/completions", json=body(tts={"strategy": SECRET}, user=SECRET), headers=key)
            await client.get(f"/{SECRET}", headers={**key, "x-request-id": SECRET, "user-agent": SECRET})
            await client.get(f"/v1/traces/{SECRET}", headers=key)
            await client.get("/v1/models", headers=key)
            await client.get("/health")
            assert SECRET not in (await client.get("/metrics")).text
            found = {
                (s.labels["endpoint"], s.labels["status"]): s.value
                for s in await samples(client)
                if s.name == "tts_requests_total" and s.labels["strategy"] == "none"
            }
            assert found == {
                ("/v1/chat/completions", "401"): 1,
                ("/v1/chat/completions", "404"): 1,
                ("/v1/chat/completions", "400"): 1,
                ("other", "404"): 1,
                ("/v1/traces/{id}", "404"): 1,
                ("/v1/models", "200"): 1,
            }

    asyncio.run(main())


def test_a_budget_that_ends_a_search_is_counted_by_its_limit() -> None:
    async def main() -> None:
        async with serving(FakeEngine(long)) as client:
            for budget in ({"max_tokens": 5}, {"max_tokens": 6}, {"max_samples": 2}):
                await ask(client, tts={"strategy": "self_consistency", "n": 4, "budget": budget}, max_tokens=9)
            stops = [s for s in await samples(client) if s.name == "tts_budget_stops_total"]
            assert {s.labels["reason"]: s.value for s in stops} == {"max_tokens": 2, "max_samples": 1}

    asyncio.run(main())


def test_a_decision_is_counted_by_whether_it_was_made_to_learn() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as client:
            await ask(client, tts={"strategy": "compute_optimal"})
            assert await value(client, "tts_decisions_total", explored="false") == 1

    asyncio.run(main())


def test_scores_that_no_search_asked_for_are_counted_too() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            asked = {"question": "What is 2 + 2?", "steps": ["It is 4."]}
            usage = (await client.post("/v1/prm/score", json=asked)).raise_for_status().json()["usage"]
            assert await value(client, "tts_prm_tokens_total", strategy="none") == usage["prm_tokens"] > 0
            assert await value(client, "tts_prm_calls_total", strategy="none") == 1
            assert await value(client, "tts_request_duration_seconds_count") == 0

    asyncio.run(main())


def test_a_completion_of_several_prompts_is_one_request_with_all_that_they_cost() -> None:
    async def main() -> None:
        async with serving() as client:
            asked = {"model": "fake", "prompt": ["One", "Two", "Three"], "max_tokens": 5}
            usage = (await client.post("/v1/completions", json=asked)).raise_for_status().json()["usage"]
            endpoint = {"endpoint": "/v1/completions", "strategy": "single", "status": "200"}
            assert await value(client, "tts_requests_total", **endpoint) == 1
            assert await value(client, "tts_generated_tokens_total") == usage["completion_tokens"]
            assert await value(client, "tts_samples_total") == 3
            assert await value(client, "tts_request_duration_seconds_count") == 1

    asyncio.run(main())


def test_servers_of_one_process_count_apart() -> None:
    async def main() -> None:
        async with serving() as one, serving() as other:
            await ask(one)
            assert await value(one, "tts_requests_total") == 1
            assert await value(other, "tts_requests_total") == 0

    asyncio.run(main())


def test_batches_of_a_reward_model_are_counted_by_size_and_wait() -> None:
    metrics = Metrics()
    began = metrics.prm_batches("fake")
    for waited in ([0.0, 0.5, 2.0], [0.1]):
        began(waited)

    def read(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"prm": "fake"})

    assert [read(f"tts_prm_batch_size_{end}") for end in ("count", "sum")] == [2, 4]
    assert [read(f"tts_prm_batch_wait_seconds_{end}") for end in ("count", "sum")] == [4, 2.6]


def test_a_reward_model_that_fails_is_paid_for() -> None:
    class Broken(FakePRM):
        async def score(self, question: str, solutions: Sequence[Sequence[str]], **more: Any) -> Any:
            more["on_tokens"](7)
            raise PRMError("gone")

    async def main() -> None:
        async with serving(prms=[Broken()]) as client:
            assert (await ask(client, tts={"strategy": "best_of_n", "n": 2})).status_code >= 500
            assert await value(client, "tts_prm_tokens_total", strategy="best_of_n") == 7

    asyncio.run(main())
