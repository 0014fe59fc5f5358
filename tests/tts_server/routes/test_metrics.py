"""`GET /metrics`."""

import asyncio

from metered import samples, value
from pydantic import SecretStr
from serving import ask, serving

from prm import FakePRM
from tts_server import __version__
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine


def test_the_page_is_open_and_well_formed() -> None:
    async def main() -> None:
        async with serving(prms=[FakePRM()], settings=Settings(api_keys=SecretStr("sk-1"))) as client:
            found = {sample.name: sample for sample in await samples(client)}
            assert found["tts_build_info"].labels == {"version": __version__, "model": "fake", "prm": "fake"}
            assert found["tts_engine_up"].value == 1
            assert "process_resident_memory_bytes" in found
            assert not any(name.endswith("_created") for name in found)

    asyncio.run(main())


def test_it_answers_while_the_engine_is_down() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as client:
            engine.healthy = False
            assert (await ask(client)).status_code == 503
            assert await value(client, "tts_engine_up") == 0
            assert await value(client, "tts_requests_total", status="503") == 1

    asyncio.run(main())
