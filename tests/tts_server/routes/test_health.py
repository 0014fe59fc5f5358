"""`GET /health` and `GET /ready`."""

import asyncio

from serving import ask, serving

from tts_server.engines.fake import FakeEngine


def test_health_and_readiness_are_empty_while_the_engine_can_answer() -> None:
    async def main() -> None:
        async with serving() as client:
            for path in ("/health", "/ready"):
                response = await client.get(path)
                assert (response.status_code, response.content) == (200, b"")

    asyncio.run(main())


def test_a_dead_engine_is_a_503_that_says_when_to_come_back() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as client:
            engine.healthy = False
            for response in (await client.get("/ready"), await ask(client), await ask(client, stream=True)):
                assert response.status_code == 503
                assert response.headers["retry-after"] == "5"
                assert response.json()["error"] == {
                    "message": "The engine is not up; it is being started again.",
                    "type": "server_error",
                    "param": None,
                    "code": "engine_unavailable",
                }
            # It is started again from within: nobody has to kill this process for it.
            assert (await client.get("/health")).status_code == 200
            engine.healthy = True
            assert (await client.get("/ready")).status_code == 200

    asyncio.run(main())
