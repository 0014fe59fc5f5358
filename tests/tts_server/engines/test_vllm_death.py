"""What becomes of requests when vLLM's engine dies under them, shown on a stand-in for it; `test_vllm.py` kills one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from mortal_vllm import Builder, install
from serving import QUESTION, serving, until

from strategies.core.contracts import Chunk, Prompt, Sampling
from tts_server.engines import vllm
from tts_server.engines.vllm import VLLMEngine
from tts_server.engines.vllm_parts import restarts
from tts_server.errors import EngineUnavailable

IDS = Prompt(token_ids=(1, 2, 3))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(vllm, "_POLL_S", 0.01)
    monkeypatch.setattr(restarts, "_FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(restarts, "_MAX_DELAY_S", 0.05)
    return install(monkeypatch)


@asynccontextmanager
async def started() -> AsyncIterator[VLLMEngine]:
    engine = VLLMEngine("nowhere", name="mortal")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def gather(engine: VLLMEngine, n: int = 1) -> list[Chunk]:
    async with aclosing(engine.generate(IDS, Sampling(), n)) as chunks:
        return [chunk async for chunk in chunks]


def test_requests_of_a_dead_engine_fail_at_once_and_it_is_started_again(built: Builder) -> None:
    async def main() -> None:
        async with started() as engine:
            first = built.last
            calls = [asyncio.create_task(gather(engine, 2)) for _ in range(3)]
            await until(lambda: len(first.queues) == 6)
            first.say(0, "a")
            await asyncio.sleep(0)
            first.die()
            for failure in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(failure, EngineUnavailable)
                assert "restarting after a failure" in failure.message
                assert int(failure.headers["Retry-After"]) > 0
            assert (engine.healthy, engine.restarts) == (False, 0)
            with pytest.raises(EngineUnavailable):
                await gather(engine)
            await until(lambda: engine.healthy)
            assert (engine.restarts, built.ended) == (1, [first])
            built.last.answers = True
            assert [chunk.text for chunk in await gather(engine)] == ["4"]
        assert not engine.healthy

    asyncio.run(main())


def test_samples_that_were_finished_outlive_their_engine(built: Builder) -> None:
    async def main() -> None:
        async with started() as engine:
            call = asyncio.create_task(gather(engine, 3))
            await until(lambda: len(built.last.queues) == 3)
            built.last.say(1, "done", ends=True)
            built.last.say(2, "half")
            await asyncio.sleep(0.01)
            built.last.die()
            chunks = await call
            assert [(chunk.index, chunk.text, chunk.finish_reason) for chunk in chunks] == [
                (1, "done", "eos"),
                (2, "half", None),
                (0, "", "error"),
                (2, "", "error"),
            ]
            assert isinstance(chunks[-1].error, EngineUnavailable)

    asyncio.run(main())


def test_starts_that_fail_are_repeated_and_not_counted(built: Builder) -> None:
    async def main() -> None:
        async with started() as engine:
            built.failures = 3
            built.last.die()
            await until(lambda: not engine.healthy)
            await until(lambda: engine.healthy)
            assert (engine.restarts, built.failures, len(built.made)) == (1, 0, 2)

    asyncio.run(main())


def test_an_engine_that_dies_of_every_start_is_given_up(built: Builder, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with started() as engine, serving(engine) as client:
            built.failures = 100
            with caplog.at_level(logging.ERROR):
                built.last.die()
                await until(lambda: not engine.healthy)
                assert (await client.get("/health")).status_code == 200
                assert (await client.get("/ready")).status_code == 503
                await until(lambda: engine.given_up)
            assert "it is given up" in caplog.text
            assert built.failures == 100 - 8
            assert (await client.get("/health")).status_code == 503
            with pytest.raises(EngineUnavailable, match="not running"):
                await gather(engine)

    asyncio.run(main())


def test_over_http_a_dead_engine_is_a_503_and_what_was_found_is_an_answer(built: Builder) -> None:
    body = {"model": "mortal", "messages": QUESTION}
    voted = {**body, "tts": {"strategy": "self_consistency", "n": 2}}

    async def main() -> None:
        async with started() as engine, serving(engine) as client:
            llm = built.last
            single = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await until(lambda: len(llm.queues) == 1)
            vote = asyncio.create_task(client.post("/v1/chat/completions", json=voted))
            await until(lambda: len(llm.queues) == 3)
            llm.say(1, "The answer is 4.", ends=True)
            await asyncio.sleep(0.05)
            llm.die()
            failed, answered = await single, await vote
            assert (failed.status_code, failed.json()["error"]["code"]) == (503, "engine_unavailable")
            assert int(failed.headers["retry-after"]) > 0
            assert answered.status_code == 200
            assert answered.json()["tts"]["answer"] == "4"
            await until(lambda: engine.restarts == 1)
            built.last.answers = True
            again = await client.post("/v1/chat/completions", json=body)
            assert again.json()["choices"][0]["message"]["content"] == "4"

    asyncio.run(main())
