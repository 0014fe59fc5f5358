"""`GET /v1/models` and `GET /v1/models/{id}`."""

import asyncio

from serving import ask, serving

import strategies
from prm import FakePRM
from tts_server import __version__
from tts_server.config import Preset, Settings
from tts_server.engines.fake import FakeEngine

SETTINGS = Settings(presets={"quick": Preset.model_validate({"strategy": "self_consistency", "n": 2})})


def test_the_model_is_first_and_has_an_alias_for_each_strategy_and_preset() -> None:
    async def main() -> None:
        async with serving(FakeEngine(model="org/m", max_model_len=600), settings=SETTINGS) as client:
            listed = (await client.get("/v1/models")).json()
            assert listed["object"] == "list"
            first, *aliases = listed["data"]
            assert first.pop("created") > 1_700_000_000
            assert first == {
                "id": "org/m",
                "object": "model",
                "owned_by": "tts-server",
                "root": "org/m",
                "parent": None,
                "max_model_len": 600,
                "version": __version__,
                "engine": "fake",
                "prm": None,
            }
            names = ["low", "medium", "high", "xhigh", "quick", *strategies.registry()]
            assert [a["id"] for a in aliases] == [f"org/m@{name}" for name in sorted(names)]
            assert {(a["root"], a["parent"]) for a in aliases} == {("org/m", "org/m")}

    asyncio.run(main())


def test_one_model_by_an_id_with_a_slash() -> None:
    async def main() -> None:
        async with serving(FakeEngine(model="org/m"), settings=SETTINGS) as client:
            for name in ("org/m", "org/m@quick"):
                response = await client.get(f"/v1/models/{name}")
                assert (response.status_code, response.json()["id"]) == (200, name)
            response = await client.get("/v1/models/org/other")
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"
            assert response.json()["error"]["param"] == "model"

    asyncio.run(main())


def test_every_listed_id_answers_under_its_own_name() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, settings=SETTINGS) as client:
            for entry in (await client.get("/v1/models")).json()["data"]:
                response = await ask(client, model=entry["id"])
                if response.status_code == 400:
                    # Without a reward model, what needs one says so.
                    assert response.json()["error"]["code"] == "unsupported_parameter"
                else:
                    assert response.json()["model"] == entry["id"]

    asyncio.run(main())


def test_a_model_says_which_reward_model_scores_by_default() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM(name="first"), FakePRM(name="second")]) as client:
            assert [m["prm"] for m in (await client.get("/v1/models")).json()["data"]][:2] == ["first", "first"]

    asyncio.run(main())
