"""`/v1/traces`: what a search did can be read again, by whoever asked for it, and agrees with what it was told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from full_disk import disk_of
from searching import broken, world
from serving import ask, body, frames, serving, until

import strategies
from prm import FakePRM
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest

TRACES = "/v1/traces"


@asynccontextmanager
async def keeping(
    directory: Path, engine: FakeEngine | None = None, headers: dict[str, str] | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that keeps traces."""
    kept = Settings(data_dir=directory, **{"traces": "full", **settings})
    async with serving(engine or FakeEngine(world()), [FakePRM()], kept, headers) as client:
        yield client


async def listed(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = (await client.get(TRACES, params=query)).raise_for_status().json()["data"]
    return data


async def fetched(client: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    trace: dict[str, Any] = (await client.get(f"{TRACES}/{id_}")).raise_for_status().json()
    return trace


def assert_agrees(trace: dict[str, Any], usage: dict[str, Any], tts: dict[str, Any]) -> None:
    """The trace's own samples add up to its usage, and that is the answer's."""
    used, samples = trace["usage"], [sample for call in trace["calls"] for sample in call["samples"]]
    assert sum(sample["completion_tokens"] for sample in samples) == used["completion_tokens"]
    assert sum(sample["prompt_tokens"] for sample in samples) == used["engine_prompt_tokens"]
    assert sum(scoring["tokens"] for scoring in trace["scorings"]) == used["prm_tokens"]
    assert (used["prompt_tokens"], used["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert used["cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert (used["samples"], trace["stop_reason"]) == (tts["samples"], tts["stop_reason"])
    same = ("engine_prompt_tokens", "cached_prompt_tokens", "completion_tokens", "prm_tokens", "prm_calls")
    assert {name: used[name] for name in same} == {name: tts["usage"][name] for name in same}


def test_body_stream_and_trace_agree_for_every_strategy(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            for name, entry in strategies.registry().items():
                options = {"n": 4} if "n" in entry.options.model_fields else {}
                tts = {"strategy": name, **options}
                plain = (await ask(client, tts=tts, seed=1)).raise_for_status().json()
                trace = await fetched(client, plain["tts"]["trace_id"])
                assert (trace["strategy"], trace["status"], trace["content"]) == (name, "done", "full")
                assert_agrees(trace, plain["usage"], plain["tts"])

                chunks = await frames(client, tts=tts, seed=1, stream_options={"include_usage": True})
                told = next(chunk["tts"] for chunk in chunks if "tts" in chunk)
                trace = await fetched(client, told["trace_id"])
                assert_agrees(trace, chunks[-1]["usage"], told)
                assert trace["final"]["candidates"][trace["final"]["ranking"][0]]["answer"] == told["answer"]

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_whose_client_leaves_is_kept(tmp_path: Path, stream: bool) -> None:
    def long(request: FakeRequest) -> str:
        return "step by step\n\n" * 200

    async def main() -> None:
        engine = FakeEngine(long, token_s=0.01)
        async with keeping(tmp_path, engine) as client:
            asked = asyncio.create_task(ask(client, tts={"strategy": "best_of_n", "n": 4}, stream=stream))
            await until(lambda: engine.live == 4 and engine.generated > 8)
            asked.cancel()
            await until(lambda: engine.live == 0)
            (head,) = await listed(client)
            assert (head["status"], head["error"], head["usage"]["samples"]) == ("cancelled", None, 4)
            trace = await fetched(client, head["id"])
            samples = trace["calls"][0]["samples"]
            assert [sample["state"] for sample in samples] == ["aborted"] * 4
            assert sum(s["completion_tokens"] for s in samples) == head["usage"]["completion_tokens"] > 0
            assert trace["final"] is None

    asyncio.run(main())


def test_a_search_that_fails_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path, FakeEngine(broken(world(), 0, 1, 2, 3))) as client:
            answer = await ask(client, tts={"strategy": "self_consistency", "n": 4})
            assert answer.status_code == 500
            (head,) = await listed(client)
            assert (head["status"], head["error"]["type"]) == ("failed", "ConnectionError")
            assert head["error"]["message"] == answer.json()["error"]["message"]
            assert head["request_id"] == answer.headers["x-request-id"]

    asyncio.run(main())


def test_a_request_that_is_refused_is_no_search(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            assert (await ask(client, tts={"strategy": "best_of_n", "nn": 4})).status_code == 400
            assert await listed(client) == []

    asyncio.run(main())


def test_the_list_is_paged_and_filtered(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            made = []
            for strategy in ("single", "best_of_n", "single"):
                made.append((await ask(client, tts={"strategy": strategy})).json()["tts"]["trace_id"])
            page = (await client.get(TRACES, params={"limit": 2})).json()
            assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == (
                "list",
                made[2],
                made[1],
                True,
            )
            assert "calls" not in page["data"][0]
            assert [head["id"] for head in await listed(client, after=made[1])] == [made[0]]
            assert [head["id"] for head in await listed(client, strategy="single")] == [made[2], made[0]]
            assert await listed(client, strategy="mcts") == []

    asyncio.run(main())


@pytest.mark.parametrize("by", ["format", "accept"])
def test_whole_records_come_as_jsonl(tmp_path: Path, by: str) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            made = [(await ask(client)).json()["tts"]["trace_id"] for _ in range(3)]
            headers = {"accept": "application/jsonl"} if by == "accept" else {}
            query = {"format": "jsonl"} if by == "format" else {}
            answer = await client.get(TRACES, params=query, headers=headers)
            assert answer.headers["content-type"].startswith("application/jsonl")
            lines = [orjson.loads(line) for line in answer.text.splitlines()]
            assert [line["id"] for line in lines] == made[::-1]
            assert lines[0] == await fetched(client, made[2])
            some = await client.get(TRACES, params={**query, "limit": 1, "after": made[2]}, headers=headers)
            assert [orjson.loads(line)["id"] for line in some.text.splitlines()] == [made[1]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"format": "xml"}, "format"),
        ({"strategy": "guessing"}, "strategy"),
        ({"after": "trace-none"}, "after"),
        ({"after": "trace-none", "format": "jsonl"}, "after"),
    ],
)
def test_a_wrong_query_is_named(tmp_path: Path, query: dict[str, Any], param: str) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            answer = await client.get(TRACES, params=query)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

    asyncio.run(main())


def test_what_is_not_there_is_404(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            answer = await client.get(f"{TRACES}/trace-none")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        async with keeping(tmp_path, traces="off") as client:
            made = (await ask(client)).json()["tts"]["trace_id"]
            answer = await client.get(f"{TRACES}/{made}")
            assert answer.status_code == 404
            assert "keeps no traces" in answer.json()["error"]["message"]
            assert (await client.get(TRACES)).status_code == 404

    asyncio.run(main())


def test_each_key_sees_its_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-of-ada\nkey-of-bob\n")

    async def main() -> None:
        async with keeping(tmp_path, api_key_file=keys) as client:
            ada, bob = ({"authorization": f"Bearer key-of-{name}"} for name in ("ada", "bob"))
            answer = await client.post("/v1/chat/completions", json=body(), headers=ada)
            place = f"{TRACES}/{answer.json()['tts']['trace_id']}"
            assert (await client.get(place, headers=ada)).status_code == 200
            assert (await client.get(place, headers=bob)).status_code == 404
            assert len((await client.get(TRACES, headers=ada)).json()["data"]) == 1
            assert (await client.get(TRACES, headers=bob)).json()["data"] == []
            assert (await client.get(TRACES, params={"format": "jsonl"}, headers=bob)).text == ""
            assert (await client.get(place)).status_code == 401

    asyncio.run(main())


def test_requests_are_answered_on_a_full_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with keeping(tmp_path) as client:
            first = (await ask(client)).json()["tts"]["trace_id"]
            assert (await client.get(f"{TRACES}/{first}")).status_code == 200
            with disk_of(1):
                for _ in range(20):
                    assert (await ask(client)).status_code == 200
                assert [one["id"] for one in await listed(client)] == [first]
            last = (await ask(client)).json()["tts"]["trace_id"]
            assert (await client.get(f"{TRACES}/{last}")).status_code == 200

    asyncio.run(main())


def test_requests_are_answered_while_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    async def main() -> None:
        async with keeping(tmp_path / "taken") as client:
            for _ in range(5):
                assert (await ask(client)).status_code == 200

    asyncio.run(main())
