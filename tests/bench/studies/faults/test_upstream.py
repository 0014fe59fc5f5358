"""The stand-in does what its marks say, and counts what it wrote apart from what may not have been read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from patience import NEVER_S

from bench.studies.faults.kinds import Fault, Mark
from bench.studies.faults.upstream import MODEL, FaultyUpstream


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[FaultyUpstream, httpx.AsyncClient]]:
    upstream = FaultyUpstream(seed=3)
    async with upstream.serve() as url, httpx.AsyncClient(base_url=url, timeout=NEVER_S) as http:
        yield upstream, http
    assert (upstream.live, upstream.connections) == (0, 0)


def body(fault: Fault = "none", **fields: Any) -> dict[str, Any]:
    prompt = list(map(ord, f"<user>2 + 2? {Mark(7, fault)}"))
    options = {"stream_options": {"include_usage": True}, "max_tokens": 500}
    return {"model": MODEL, "prompt": prompt, "stream": True, "return_token_ids": True, **options, **fields}


def frames(text: str) -> list[Any]:
    events = text.removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    return [orjson.loads(event.removeprefix("data: ")) for event in events]


def test_every_token_that_it_tells_is_counted() -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            told = frames((await http.post("/v1/completions", json=body(n=3))).text)
            ids = [token for frame in told for choice in frame["choices"] for token in choice["token_ids"]]
            texts = "".join(choice["text"] for frame in told for choice in frame["choices"])
            assert "".join(map(chr, ids)) == texts
            assert upstream.counts[7].tokens == len(ids) == told[-1]["usage"]["completion_tokens"]
            ends = [choice["finish_reason"] for frame in told for choice in frame["choices"]]
            assert sorted(filter(None, ends)) == ["stop"] * 3

    asyncio.run(main())


@pytest.mark.parametrize(("fault", "status"), [("busy", 429), ("error", 500), ("unavailable", 503), ("page", 200)])
def test_a_fault_before_the_answer_generates_nothing(fault: Fault, status: int) -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            answer = await http.post("/v1/completions", json=body(fault))
            assert answer.status_code == status
            assert upstream.counts[7].tokens == upstream.counts[7].unread == 0

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["refuse", "nonsense", "cut", "reset", "garbage", "report", "early", "types"])
def test_a_fault_of_the_answer_is_one(fault: Fault) -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            try:
                text = (await http.post("/v1/completions", json=body(fault))).text
            except httpx.TransportError:
                return
            assert fault in ("early", "garbage", "report", "types")
            assert 'usage":{' not in text or "[DONE]" not in text
            assert upstream.befallen[fault] == 1

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["hang", "stall"])
def test_whoever_waits_for_nothing_leaves_and_may_not_have_read(fault: Fault) -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/completions", json=body(fault), timeout=httpx.Timeout(NEVER_S, read=0.3))
            async with asyncio.timeout(NEVER_S):
                while upstream.live:  # noqa: ASYNC110  it sets no event
                    await asyncio.sleep(0.01)
            assert upstream.counts[7].tokens == 0

    asyncio.run(main())


def test_a_trickle_says_the_same() -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            told = frames((await http.post("/v1/completions", json=body("trickle"))).text)
            assert upstream.counts[7].tokens == told[-1]["usage"]["completion_tokens"] > 0

    asyncio.run(main())


def test_a_verdict_is_counted_as_the_reward_model_s() -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            labels = {"logprobs": 2, "logprob_token_ids": [89, 78], "return_tokens_as_token_ids": True}
            for fault, told in (("none", True), ("unlabelled", False)):
                asked_for = body(fault, max_tokens=1, **labels)  # type: ignore[arg-type]
                first = frames((await http.post("/v1/completions", json=asked_for)).text)[0]["choices"][0]
                assert bool(first["logprobs"]) == told
            assert upstream.counts[7].prm_tokens == 1 + len(body()["prompt"]) + 1 + len(body("unlabelled")["prompt"])
            assert upstream.counts[7].tokens == 0

    asyncio.run(main())


def test_it_dies_and_rises_where_it_was() -> None:
    async def main() -> None:
        async with asked() as (upstream, http):
            assert (await http.get("/v1/models")).status_code == 200
            await upstream.die()
            with pytest.raises(httpx.TransportError):
                await http.get("/v1/models")
            await upstream.rise()
            assert (await http.get("/v1/models")).status_code == 200

    asyncio.run(main())
