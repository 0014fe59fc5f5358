"""One call in several parts."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from strategies.core.contracts import Chunk
from tts_server.admission.split_call import in_parts

Engine = Callable[[int], AsyncGenerator[Chunk, None]]


def read(begin: Engine, sizes: Sequence[int]) -> list[Chunk]:
    async def main() -> list[Chunk]:
        return [chunk async for chunk in in_parts(begin, sizes)]

    return asyncio.run(main())


async def grows(n: int) -> AsyncGenerator[Chunk, None]:
    for index in range(n):
        yield Chunk(index, "a", completion_tokens=1)
        await asyncio.sleep(0)
    for index in range(n):
        yield Chunk(index, "b", completion_tokens=1, finish_reason="eos")


def failing(*failed: int) -> Engine:
    """Parts of these numbers fail after their first chunk; of a negative number before it."""
    begun = iter(range(100))

    async def begin(n: int) -> AsyncGenerator[Chunk, None]:
        number = next(begun)
        if -number - 1 in failed:
            raise OSError(f"part {number}")
        async for chunk in grows(n):
            yield chunk
            if number in failed:
                raise OSError(f"part {number}")

    return begin


def test_the_samples_of_all_parts_are_numbered_as_those_of_one_call() -> None:
    chunks = read(grows, [3, 1, 2])
    assert sorted(chunk.index for chunk in chunks if chunk.finish_reason) == list(range(6))
    for index in range(6):
        assert "".join(chunk.text for chunk in chunks if chunk.index == index) == "ab"


def test_a_part_that_fails_ends_its_own_samples_only() -> None:
    chunks = read(failing(1), [2, 2, 2])
    ends = {chunk.index: chunk for chunk in chunks if chunk.finish_reason}
    assert [ends[index].finish_reason for index in range(6)] == ["eos", "eos", "error", "error", "eos", "eos"]
    assert str(ends[2].error) == "part 1"


def test_a_part_that_never_began_is_told_once_another_grows() -> None:
    chunks = read(failing(-1), [2, 2])
    assert chunks[0].error is None or chunks[-1].error is None
    ends = {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason}
    assert ends == {0: "error", 1: "error", 2: "eos", 3: "eos"}


def test_where_no_part_begins_the_call_fails_with_the_first_cause() -> None:
    with pytest.raises(OSError, match="part 0"):
        read(failing(-1, -2, -3), [2, 2, 2])


def test_closing_it_closes_every_part() -> None:
    open_parts = 0

    async def endless(n: int) -> AsyncGenerator[Chunk, None]:
        nonlocal open_parts
        open_parts += 1
        try:
            while True:
                yield Chunk(0, "a", completion_tokens=1)
                await asyncio.sleep(0)
        finally:
            open_parts -= 1

    async def main() -> None:
        parts = in_parts(endless, [4, 4, 4])
        for _ in range(9):
            await anext(parts)
        assert open_parts == 3
        await parts.aclose()
        assert open_parts == 0

    asyncio.run(main())
