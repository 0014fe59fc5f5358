"""What each owner's requests have cost, in `/v1/usage` and in `/metrics`."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from serving import body, serving, until

from prm import FakePRM
from tts_server.admission import usage
from tts_server.app import create_app
from tts_server.batches.dispatch import dispatch
from tts_server.config import KeyLimits, Settings
from tts_server.engines.fake import FakeEngine

ALICE, BOB = {"Authorization": "Bearer secret-a"}, {"Authorization": "Bearer secret-b"}
NOTHING = {
    "requests": 0,
    "statuses": {},
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "engine_prompt_tokens": 0,
    "cached_prompt_tokens": 0,
    "prm_tokens": 0,
    "prm_calls": 0,
    "samples": 0,
}


def settings(tmp_path: Path, **limits: int) -> Settings:
    (tmp_path / "keys").write_text("alice:secret-a\nbob:secret-b\ncarol:secret-c\n")
    return Settings(api_key_file=tmp_path / "keys", key_limits=KeyLimits(**limits))


async def used(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await client.get("/v1/usage", headers=headers)
    assert answer.status_code == 200
    assert "secret" not in answer.text
    found: dict[str, Any] = answer.json()
    assert found.pop("object") == "usage"
    assert found.pop("since") > 1_500_000_000
    return found


def test_each_owner_sees_what_its_own_requests_have_cost(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, [FakePRM()], settings(tmp_path, requests_per_minute=3)) as client:
            asked = body(tts={"strategy": "best_of_n", "n": 4})
            answer = (await client.post("/v1/chat/completions", json=asked, headers=ALICE)).json()
            cost = answer["tts"]["usage"]
            assert (await client.post("/v1/chat/completions", json=body(n=0), headers=ALICE)).status_code == 400
            scored = await client.post("/v1/prm/score", json={"question": "1+1", "steps": ["2"]}, headers=ALICE)
            assert (await client.post("/v1/chat/completions", json=asked, headers=ALICE)).status_code == 429
            assert (await client.post("/v1/chat/completions", json=asked)).status_code == 401
            for _ in range(3):
                assert await used(client, ALICE) == {
                    "owner": "alice",
                    "requests": 4,
                    "statuses": {"200": 2, "400": 1, "429": 1},
                    "prompt_tokens": answer["usage"]["prompt_tokens"],
                    "completion_tokens": engine.generated,
                    "engine_prompt_tokens": cost["engine_prompt_tokens"],
                    "cached_prompt_tokens": cost["cached_prompt_tokens"],
                    "prm_tokens": cost["prm_tokens"] + scored.json()["usage"]["prm_tokens"],
                    "prm_calls": cost["prm_calls"] + 1,
                    "samples": 4,
                    "limits": {"requests_per_minute": 3, "concurrent_requests": None, "tokens_per_hour": None},
                }
            assert (await used(client, BOB)).items() >= NOTHING.items()
            assert (await client.get("/v1/usage")).status_code == 401

    asyncio.run(main())


def test_without_keys_it_is_the_whole_server_s(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as client:
            assert await used(client) == {"owner": None, "limits": None, **NOTHING}
            await client.post("/v1/chat/completions", json=body(stream=True))
            found = await used(client)
            assert (found["requests"], found["completion_tokens"]) == (1, engine.generated)
            assert "tts_owner_requests_total{" not in (await client.get("/metrics")).text

    asyncio.run(main())


def test_who_leaves_has_used_what_was_generated(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(lambda r: "word " * 10_000, token_s=0.002)
        async with serving(engine, (), settings(tmp_path), ALICE) as client:
            asked = asyncio.create_task(client.post("/v1/chat/completions", json=body()))
            await until(lambda: engine.generated > 20)
            asked.cancel()
            await until(lambda: engine.live == 0)
            found = await used(client)
            assert found["statuses"] == {"499": 1}
            assert abs(found["completion_tokens"] - engine.generated) <= 1

    asyncio.run(main())


def test_lines_of_batches_are_their_owner_s(tmp_path: Path) -> None:
    async def main() -> None:
        app = create_app(FakeEngine(), (), settings(tmp_path))
        for _ in range(3):
            await dispatch(app, "/v1/chat/completions", orjson.dumps(body()), "bob")
        async with serving(app=app) as client:
            assert (await used(client, BOB))["statuses"] == {"200": 3}

    asyncio.run(main())


def test_metrics_tell_owners_apart_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_NAMED", 1)

    async def main() -> str:
        async with serving(FakeEngine(lambda r: "a b"), (), settings(tmp_path)) as client:
            for key in ("secret-a", "secret-b", "secret-b", "secret-c", "nobody"):
                headers = {"Authorization": f"Bearer {key}"}
                await client.post("/v1/chat/completions", json=body(), headers=headers)
            return (await client.get("/metrics")).text

    text = asyncio.run(main())
    lines = [line for line in text.splitlines() if line.startswith("tts_owner_requests_total{")]
    assert lines == [
        'tts_owner_requests_total{owner="(others)",status="200"} 3.0',
        'tts_owner_requests_total{owner="alice",status="200"} 1.0',
    ]
    generated = [line for line in text.splitlines() if 'tts_owner_tokens_total{kind="generated"' in line]
    assert [float(line.rpartition(" ")[2]) > 0 for line in generated] == [True, True]
    assert "secret" not in text
