"""What one call of the engine leaves behind, whatever goes wrong with it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from searching import TASK, BreakingEngine, world

from strategies.core.account import Account, Budget
from strategies.core.contracts import Chunk, FinishReason, Prompt, Sample, Sampling
from strategies.core.metered import MeteredEngine
from strategies.sampling.drawing import Drawing, raise_if_all_failed
from tts_server.engines.fake import FakeEngine


class ListedEngine(FakeEngine):
    """Gives these chunks, and fails then."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        super().__init__()
        self._chunks = chunks

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        for chunk in self._chunks:
            yield chunk
        raise ConnectionError("the engine is gone")


def reasons(drawing: Drawing) -> list[FinishReason | None]:
    return [sample.finish_reason for sample in asyncio.run(drawing.run())]


def test_it_draws_the_samples_of_a_call_with_the_indexes_that_are_wanted() -> None:
    drawing = Drawing.of(TASK, FakeEngine(world()), 3, first=5)
    assert reasons(drawing) == ["eos"] * 3
    assert [sample.chunks[0].index for sample in drawing.samples] == [5, 6, 7]
    assert drawing.failure is None


def test_a_failure_ends_what_still_grows_and_is_kept() -> None:
    drawing = Drawing.of(TASK, BreakingEngine(world(gap=3)), 3)
    assert reasons(drawing) == ["eos", "error", "error"]
    assert isinstance(drawing.failure, ConnectionError)
    drawing.raise_if_lost()


def test_a_failure_before_anything_has_begun_is_a_sample_of_its_own() -> None:
    drawing = Drawing.of(TASK, ListedEngine([]), 2)
    assert reasons(drawing) == ["error"]
    with pytest.raises(ConnectionError, match="the engine is gone"):
        drawing.raise_if_lost()


def test_samples_that_had_not_begun_fail_as_one_beside_those_that_have_ended() -> None:
    drawing = Drawing.of(TASK, ListedEngine([Chunk(1, "x"), Chunk(1, finish_reason="eos")]), 3, first=4)
    assert reasons(drawing) == ["error", "eos"]
    assert [sample.chunks[-1].index for sample in drawing.samples] == [4, 5]


def test_a_failure_after_the_end_of_all_is_none() -> None:
    drawing = Drawing.of(TASK, ListedEngine([Chunk(0, "x", finish_reason="eos")]))
    assert reasons(drawing) == ["eos"]
    assert drawing.failure is None


def test_a_call_that_the_budget_does_not_allow_has_no_samples() -> None:
    account = Account(Budget(max_samples=0))
    drawing = Drawing.of(TASK, MeteredEngine(FakeEngine(world()), account))
    assert reasons(drawing) == []
    assert drawing.unpaid is not None
    assert drawing.unpaid.reason == "max_samples"


def test_it_ends_with_the_last_chunk_that_is_wanted() -> None:
    engine = FakeEngine(lambda request: "one two three four")
    (sample,) = asyncio.run(Drawing.of(TASK, engine).run(lambda chunk: "two" in chunk.text))
    assert sample.finish_reason is None
    assert sample.text.strip() == "one two"
    assert engine.live == 0


def test_all_failed_is_the_first_cause() -> None:
    def sample(text: str, reason: FinishReason | None, error: Exception | None = None) -> Sample:
        return Sample([Chunk(0, text, finish_reason=reason, error=error)])

    first, second = ConnectionError("first"), ValueError("second")
    with pytest.raises(ConnectionError, match="first"):
        raise_if_all_failed([sample("", "error", first), sample("", "error", second)])
    with pytest.raises(RuntimeError, match="no cause"):
        raise_if_all_failed([sample("half", None)])
    raise_if_all_failed([sample("", "error", first), sample("", "budget")])
    raise_if_all_failed([])
