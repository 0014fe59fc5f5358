"""Room for so many samples only."""

import asyncio

from strategies.core.contracts import Prompt, Sampling
from tts_server.engines.fake import FakeEngine
from tts_server.engines.fake_parts.batch import Batch


def test_the_first_that_came_grow() -> None:
    batch = Batch[str](2)
    for sample in "abcd":
        batch.enter(sample)
    assert [sample for sample in "abcd" if sample in batch.growing] == ["a", "b"]
    batch.leave("c")
    batch.leave("a")
    assert [sample for sample in "abcd" if sample in batch.growing] == ["b", "d"]
    batch.leave("a")
    assert [sample for sample in "abcd" if sample in batch.growing] == ["b", "d"]


def test_without_a_number_of_slots_all_grow() -> None:
    batch = Batch[int](None)
    for sample in range(100):
        batch.enter(sample)
    assert all(sample in batch.growing for sample in range(100))


def test_an_engine_with_slots_ends_its_samples_in_the_order_of_arrival() -> None:
    async def main() -> None:
        engine = FakeEngine(lambda request: "a b c", slots=2)
        prompt = Prompt(({"role": "user", "content": "hi"},))
        chunks = [chunk async for chunk in engine.generate(prompt, Sampling(), 5)]
        assert [chunk.index for chunk in chunks if chunk.finish_reason] == [0, 1, 2, 3, 4]
        assert max(chunk.index for chunk in chunks[:6]) == 1
        first = engine.generate(prompt, Sampling(), 2)
        await anext(first)
        await first.aclose()
        assert sum([chunk.finish_reason is not None async for chunk in engine.generate(prompt, Sampling(), 2)]) == 2

    asyncio.run(main())
