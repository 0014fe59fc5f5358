"""The last door before the routes."""

import asyncio

import pytest
from serving import ask, body, serving, until

from tts_server.app import create_app
from tts_server.app_state import AppState
from tts_server.batches.dispatch import dispatch
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine


def test_no_more_requests_than_there_is_room_for() -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.02)
        async with serving(engine, settings=Settings(max_requests=2)) as client:
            running = [asyncio.create_task(ask(client)) for _ in range(2)]
            await until(lambda: engine.live == 2)
            response = await ask(client)
            assert response.status_code == 429
            assert response.headers["retry-after"] == "5"
            assert response.json() == {
                "error": {
                    "message": "The server has 2 requests under way.",
                    "type": "rate_limit_error",
                    "param": None,
                    "code": "rate_limit_exceeded",
                }
            }
            assert (await client.get("/health")).status_code == 200
            assert [r.status_code for r in await asyncio.gather(*running)] == [200, 200]
            assert (await ask(client)).status_code == 200

    asyncio.run(main())


def test_a_client_that_left_gives_its_place_back() -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.02)
        async with serving(engine, settings=Settings(max_requests=2)) as client:
            for _ in range(4):
                running = [asyncio.create_task(ask(client)) for _ in range(2)]
                await until(lambda: engine.live == 2)
                for task in running:
                    task.cancel()
                await until(lambda: engine.live == 0)
            assert (await ask(client, max_tokens=1)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("strategy", ["single", "self_consistency"])
def test_requests_wait_for_their_turn_and_are_all_answered(strategy: str) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, settings=Settings(max_live_samples=2)) as client:
            answers = await asyncio.gather(*(ask(client, tts={"strategy": strategy}) for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert engine.live == 0

    asyncio.run(main())


def test_a_full_queue_refuses_new_requests_and_says_when_to_come_back() -> None:
    async def main() -> None:
        app = create_app(FakeEngine(token_s=0.05), settings=Settings(max_live_samples=1, max_waiting_samples=2))
        admission = AppState.of(app).admission
        async with serving(app=app) as client:
            running = [asyncio.create_task(ask(client)) for _ in range(3)]
            await until(lambda: admission.waiting == 2)
            refused = await ask(client)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.json()["error"] == {
                "message": "2 samples wait for the engine already.",
                "type": "rate_limit_error",
                "param": None,
                "code": "rate_limit_exceeded",
            }
            # What costs the engine nothing is answered.
            assert (await client.get("/v1/models")).status_code == 200
            assert [answer.status_code for answer in await asyncio.gather(*running)] == [200] * 3

    asyncio.run(main())


def test_a_deadline_that_passes_in_the_queue_is_kept() -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.05)
        async with serving(engine, settings=Settings(max_live_samples=1)) as client:
            first = asyncio.create_task(ask(client))
            await until(lambda: engine.live == 1)
            late = await ask(client, tts={"budget": {"deadline_s": 0.05}})
            assert not first.done()
            assert late.status_code == 200
            told = late.json()
            assert told["choices"][0]["finish_reason"] == "length"
            assert told["tts"]["stop_reason"] == "deadline"
            assert told["usage"]["completion_tokens"] == 0
            assert (await first).status_code == 200

    asyncio.run(main())


def test_a_client_that_leaves_the_queue_leaves_nothing() -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.05)
        app = create_app(engine, settings=Settings(max_live_samples=1))
        admission = AppState.of(app).admission
        async with serving(app=app) as client:
            first = asyncio.create_task(ask(client))
            await until(lambda: engine.live == 1)
            waiting = [asyncio.create_task(ask(client, tts={"strategy": "self_consistency"})) for _ in range(4)]
            await until(lambda: admission.waiting >= 4)
            for task in waiting:
                task.cancel()
            await until(lambda: admission.waiting == 0)
            assert (await first).status_code == 200
            assert admission.live == 0

    asyncio.run(main())


def test_while_the_server_goes_down_new_requests_are_refused_and_probes_told() -> None:
    async def main() -> None:
        app = create_app(FakeEngine())
        async with serving(app=app) as client:
            drain = AppState.of(app).drain
            assert (await client.get("/ready")).status_code == 200
            drain.begin(30)
            refused = await ask(client)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "5"
            assert refused.headers["connection"] == "close"
            assert refused.json()["error"]["code"] == "engine_unavailable"
            ready = await client.get("/ready")
            assert ready.status_code == 503
            assert ready.json()["error"]["message"] == "The server is going down."
            assert (await client.get("/health")).status_code == 200

    asyncio.run(main())


def test_the_lines_of_batches_have_places_of_their_own_behind_all_others() -> None:
    async def main() -> None:
        engine = FakeEngine(token_s=0.01)
        app = create_app(engine, settings=Settings(max_live_samples=1))
        admission = AppState.of(app).admission
        order: list[str] = []

        async def line(number: int) -> None:
            content = b'{"model":"fake","messages":[{"role":"user","content":"hi"}],"max_tokens":3}'
            assert (await dispatch(app, "/v1/chat/completions", content, "")).status == 200
            order.append(f"line {number}")

        async with serving(app=app) as client:
            lines = [asyncio.create_task(line(number)) for number in range(3)]
            await until(lambda: admission.waiting == 2)

            async def asked() -> None:
                assert (await client.post("/v1/chat/completions", json=body(max_tokens=3))).status_code == 200
                order.append("asked")

            questions = [asyncio.create_task(asked()) for _ in range(2)]
            await until(lambda: admission.waiting == 4 or len(order) > 0)
            await asyncio.gather(*lines, *questions)
        assert order[-1].startswith("line")

    asyncio.run(main())
