"""Gathering layouts into batches, on a reader without a model."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from patience import NEVER_S

from prm import Layout, PRMError
from prm.backend.batching import Batcher, Planned, Scores


def layouts(*lengths: int) -> list[Layout]:
    return [Layout((7,) * length, (length - 1,)) for length in lengths]


class Lengths:
    """Scores a layout by its length; takes at most `most` of them at once, and waits for `go`."""

    def __init__(self, most: int = 10, before: Callable[[], object] = lambda: None) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self._most = most
        self._before = before

    def choose(self, layouts: Sequence[Layout]) -> list[Planned]:
        return [Planned(i, len(layout.token_ids)) for i, layout in enumerate(layouts[: self._most])]

    def read(self, layouts: Sequence[Layout]) -> list[Scores]:
        self.threads.add(threading.get_ident())
        self.batches.append([len(layout.token_ids) for layout in layouts])
        self._before()
        return [(1 / len(layout.token_ids),) for layout in layouts]


@contextmanager
def batcher(reader: Lengths, wait_s: float = 0.0) -> Iterator[Batcher]:
    made = Batcher(reader, "test", wait_s)
    try:
        yield made
    finally:
        made.close()


def test_calls_that_run_at_once_share_a_batch_and_get_their_own() -> None:
    reader = Lengths()

    async def main() -> list[list[Scores]]:
        with batcher(reader, wait_s=0.05) as made:
            return await asyncio.gather(made.read(layouts(1, 2), None), made.read(layouts(4), None))

    assert asyncio.run(main()) == [[(1.0,), (0.5,)], [(0.25,)]]
    assert reader.batches == [[1, 2, 4]]
    assert threading.get_ident() not in reader.threads


def test_each_batch_tells_for_how_long_its_layouts_have_waited() -> None:
    told: list[Sequence[float]] = []
    reader = Lengths()

    async def main() -> None:
        made = Batcher(reader, "test", 0.05, told.append)
        try:
            await asyncio.gather(made.read(layouts(1, 2), None), made.read(layouts(4), None))
        finally:
            made.close()

    asyncio.run(main())
    assert [len(waited) for waited in told] == [len(batch) for batch in reader.batches]
    assert all(0.04 < seconds < NEVER_S for waited in told for seconds in waited)


def test_what_comes_while_a_batch_is_read_is_in_the_next() -> None:
    started, go = threading.Event(), threading.Event()

    def before() -> None:
        started.set()
        go.wait(NEVER_S)

    reader = Lengths(before=before)

    async def main() -> None:
        with batcher(reader) as made:
            first = asyncio.create_task(made.read(layouts(1), None))
            await asyncio.to_thread(started.wait, 10)
            rest = [asyncio.create_task(made.read(layouts(n), None)) for n in (2, 3)]
            await asyncio.sleep(0)
            assert made.waiting == 2
            go.set()
            await asyncio.gather(first, *rest)

    asyncio.run(main())
    assert reader.batches == [[1], [2, 3]]


def test_a_call_may_need_several_batches_and_is_told_of_each() -> None:
    reader, tokens = Lengths(most=2), list[int]()

    async def main() -> list[Scores]:
        with batcher(reader) as made:
            scores = await made.read(layouts(1, 2, 4, 5, 8), tokens.append)
            assert made.computed == 20
            return scores

    assert asyncio.run(main()) == [(1.0,), (0.5,), (0.25,), (0.2,), (0.125,)]
    assert reader.batches == [[1, 2], [4, 5], [8]]
    assert sum(tokens) == 20


def test_nothing_to_read_needs_no_batch() -> None:
    reader = Lengths()
    with batcher(reader) as made:
        assert asyncio.run(made.read([], None)) == []
    assert reader.batches == []


def test_a_cancelled_call_drops_what_has_not_begun_and_tells_what_has() -> None:
    started, go, tokens = threading.Event(), threading.Event(), list[int]()

    def before() -> None:
        started.set()
        go.wait(NEVER_S)

    reader = Lengths(most=1, before=before)

    async def main() -> None:
        with batcher(reader) as made:
            call = asyncio.create_task(made.read(layouts(3, 5, 7), tokens.append))
            other = asyncio.create_task(made.read(layouts(9), None))
            await asyncio.to_thread(started.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert made.waiting == 1
            go.set()
            await other

    asyncio.run(main())
    assert reader.batches == [[3], [9]]
    assert sum(tokens) == 3


def test_a_failed_batch_fails_its_calls_and_no_others() -> None:
    def before() -> None:
        if reader.batches[-1] == [2]:
            raise MemoryError("out of memory")

    reader, tokens = Lengths(most=1, before=before), list[int]()

    async def main() -> None:
        with batcher(reader) as made:
            bad = asyncio.create_task(made.read(layouts(2, 3, 5), tokens.append))
            good = asyncio.create_task(made.read(layouts(4), None))
            with pytest.raises(PRMError, match="out of memory"):
                await bad
            assert await good == [(0.25,)]
            assert await made.read(layouts(8), None) == [(0.125,)]

    asyncio.run(main())
    assert sum(tokens) == sum(n for batch in reader.batches for n in batch) - 4 - 8


def test_a_choice_that_fails_is_no_silence() -> None:
    class Undecided(Lengths):
        def choose(self, layouts: Sequence[Layout]) -> list[Planned]:
            raise ValueError("cannot choose")

    with batcher(Undecided()) as made, pytest.raises(PRMError, match="cannot choose"):
        asyncio.run(made.read(layouts(1), None))


def test_closing_fails_what_waits_and_what_comes() -> None:
    async def main() -> None:
        made = Batcher(Lengths(), "test", 60.0)
        call = asyncio.create_task(made.read(layouts(1), None))
        await asyncio.sleep(0)
        assert made.waiting == 1
        await asyncio.to_thread(made.close)
        with pytest.raises(PRMError, match="closed"):
            await call
        with pytest.raises(PRMError, match="closed"):
            await made.read(layouts(1), None)

    asyncio.run(main())


def test_a_loop_that_is_gone_harms_no_other() -> None:
    started, go = threading.Event(), threading.Event()

    def before() -> None:
        started.set()
        go.wait(NEVER_S)

    with batcher(Lengths(before=before)) as made:
        loop = asyncio.new_event_loop()
        task = loop.create_task(made.read(layouts(1), None))
        loop.run_until_complete(asyncio.sleep(0))
        started.wait(NEVER_S)
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        go.set()
        assert asyncio.run(made.read(layouts(2), None)) == [(0.5,)]
