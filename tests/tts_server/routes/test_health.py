"""`GET /health`."""

import asyncio

from serving import ask, serving

from tts_server.engines.fake import FakeEngine


def test_health_is_empty_while_the_engine_can_answer() -> None:
    async def main() -> None:
        async with serving() as client:
            response = await client.get("/health")
            assert (response.status_code, response.content) == (200, b"")

    asyncio.run(main())


def test_a_dead_engine_is_a_503_that_says_when_to_come_back() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as client:
            engine.healthy = False
            for response in (await client.get("/health"), await ask(client), await ask(client, stream=True)):
                assert response.status_code == 503
                assert response.headers["retry-after"] == "5"
                assert response.json()["error"] == {
                    "message": "The engine is not up; it is being started again.",
                    "type": "server_error",
                    "param": None,
                    "code": "engine_unavailable",
                }
            engine.healthy = True
            assert (await client.get("/health")).status_code == 200

    asyncio.run(main())
