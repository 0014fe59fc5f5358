"""The engine as requests see it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from strategies.core.contracts import Chunk, Prompt, Sampling
from tts_server.admission.engine import FLOW, AdmittedEngine
from tts_server.admission.queue import Admission
from tts_server.engines.fake import FakeEngine

PROMPT = Prompt(({"role": "user", "content": "hi"},))


class Counting(FakeEngine):
    """Remembers the sizes of its calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(lambda request: "one two three", **options)
        self.calls: list[int] = []

    def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.calls.append(n)
        return super().generate(prompt, sampling, n)


async def ended(engine: FakeEngine, n: int = 1, **sampling: Any) -> list[int]:
    """The indexes of a call's samples, in the order in which they end."""
    async with aclosing(AdmittedEngine(engine).generate(PROMPT, Sampling(**sampling), n)) as chunks:
        return [chunk.index async for chunk in chunks if chunk.finish_reason]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_a_flow_that_is_given_stands_before_that_of_the_request_under_way() -> None:
    async def main() -> None:
        given, under_way, engine = Admission(4), Admission(4), Counting(token_s=0.001)
        FLOW.set(under_way.flow(""))
        async with aclosing(AdmittedEngine(engine, given.flow("")).generate(PROMPT, Sampling(), 2)) as chunks:
            await anext(chunks)
            assert (given.live, under_way.live) == (2, 0)

    run(main())


def test_outside_of_a_request_nobody_waits() -> None:
    engine = Counting()
    assert sorted(asyncio.run(ended(engine, 3))) == [0, 1, 2]
    assert engine.calls == [3]


def test_what_fits_alone_is_one_engine_request() -> None:
    async def main() -> None:
        admission, engine = Admission(64), Counting()
        FLOW.set(admission.flow(""))
        assert sorted(await ended(engine, 64)) == list(range(64))
        assert engine.calls == [64]
        assert (admission.live, admission.permits) == (0, set())

    run(main())


def test_what_does_not_fit_is_asked_for_in_parts() -> None:
    async def main() -> None:
        admission, engine = Admission(10), Counting(token_s=0.001)
        FLOW.set(admission.flow(""))
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, engine.live)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        assert sorted(await ended(engine, 21)) == list(range(21))
        watching.cancel()
        assert engine.calls == [10, 4, 4, 3]
        assert most <= 13
        assert (admission.live, admission.waiting, admission.permits) == (0, 0, set())

    run(main())


def test_a_seeded_call_is_one_engine_request_and_the_same_under_load() -> None:
    async def main() -> None:
        admission = Admission(2)
        FLOW.set(admission.flow(""))
        engine = Counting()
        await ended(engine, 8, seed=1)
        assert engine.calls == [8]

    run(main())


def test_a_small_request_has_its_turn_between_the_parts_of_a_large_one() -> None:
    async def main() -> None:
        admission, engine = Admission(4), Counting(token_s=0.001)
        order: list[str] = []

        async def request(name: str, n: int) -> None:
            FLOW.set(admission.flow(name))
            await ended(engine, n)
            order.append(name)

        large = asyncio.create_task(request("large", 40))
        while engine.live < 4:  # noqa: ASYNC110  it sets no event
            await asyncio.sleep(0)
        await asyncio.gather(*(request(f"small {i}", 1) for i in range(3)))
        assert "large" not in order
        await large
        assert (admission.live, admission.waiting) == (0, 0)

    run(main())


def test_a_call_that_is_closed_gives_everything_back() -> None:
    async def main() -> None:
        for n in (1, 3, 9):
            admission, engine = Admission(4), Counting()
            FLOW.set(admission.flow(""))
            chunks = AdmittedEngine(engine).generate(PROMPT, Sampling(), n)
            await anext(chunks)
            assert admission.live
            await chunks.aclose()
            assert (admission.live, admission.waiting, admission.permits, engine.live) == (0, 0, set(), 0)

    run(main())


def test_a_call_that_fails_gives_everything_back() -> None:
    async def main() -> None:
        for n in (1, 3, 9):
            admission, engine = Admission(4), Counting()
            engine.healthy = False
            FLOW.set(admission.flow(""))
            with pytest.raises(Exception, match="closed"):
                await ended(engine, n)
            assert (admission.live, admission.waiting, admission.permits) == (0, 0, set())

    run(main())


def test_a_deadline_also_passes_in_the_queue() -> None:
    async def main() -> None:
        admission, engine = Admission(1), Counting(token_s=0.001)
        first = await admission.flow("other").take(1)
        FLOW.set(admission.flow(""))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ended(engine)
        assert (admission.live, admission.waiting, engine.calls) == (1, 0, [])
        first.close()
        assert admission.live == 0

    run(main())


def test_it_looks_like_the_engine_also_after_its_start() -> None:
    engine = FakeEngine(max_model_len=99)
    seen = AdmittedEngine(engine)
    assert (seen.model, seen.max_model_len, seen.continues) == ("fake", 99, True)
    assert asyncio.run(seen.encode(PROMPT)) == asyncio.run(engine.encode(PROMPT))
    engine.max_model_len = 100
    assert seen.max_model_len == 100
