"""`GET /v1/strategies`."""

import asyncio

from serving import serving

import strategies
from tts_server.engines.fake import FakeEngine


def test_every_strategy_is_described() -> None:
    async def main() -> None:
        async with serving() as client:
            listed = (await client.get("/v1/strategies")).json()
            assert listed["object"] == "list"
            by_id = {entry["id"]: entry for entry in listed["data"]}
            assert list(by_id) == list(strategies.registry())
            for entry in by_id.values():
                assert entry["object"] == "strategy"
                assert entry["description"].endswith(".")
                assert entry["paper"]
                assert entry["available"] is True
                assert entry["options"]["additionalProperties"] is False
            best = by_id["best_of_n"]
            assert best["uses_prm"] is True
            assert best["options"]["properties"]["n"]["default"] == 8
            assert best["options"]["properties"]["n"]["description"]
            assert by_id["single"]["uses_prm"] is False

    asyncio.run(main())


def test_what_the_engine_cannot_run_is_not_available() -> None:
    async def main() -> None:
        async with serving(FakeEngine(continues=False)) as client:
            listed = (await client.get("/v1/strategies")).json()["data"]
            wanted = {name: not entry.continues for name, entry in strategies.registry().items()}
            assert {entry["id"]: entry["available"] for entry in listed} == wanted

    asyncio.run(main())
