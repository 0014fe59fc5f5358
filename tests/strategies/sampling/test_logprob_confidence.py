import asyncio
import math
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from searching import TASK

from strategies.core.contracts import Candidate, Chunk, Sample, Sampling, TokenLogprob
from strategies.sampling.logprob_confidence import (
    Ballot,
    LogprobReader,
    Trace,
    Watch,
    bottom,
    elect_by,
    groups,
    lowest,
    mean,
    mean_probability,
    only_asked,
    percentile,
    reaches,
    tail,
    token_confidence,
)
from tts_server.engines.fake import FakeEngine, FakeReply

CONFIDENCES = st.lists(st.floats(0, 20), min_size=1, max_size=40)


def token(*tops: float) -> TokenLogprob:
    return TokenLogprob("x", -1.0, top=tuple(TokenLogprob(str(i), top) for i, top in enumerate(tops)))


def test_a_token_is_sure_where_its_rivals_are_not_likely() -> None:
    assert token_confidence(token(-0.5, -1.5)) == 1.0
    flat = token_confidence(token(*[math.log(0.05)] * 20))
    peaked = token_confidence(token(math.log(0.98), *[math.log(0.02 / 19)] * 19))
    assert flat is not None
    assert peaked is not None
    assert flat < peaked
    assert token_confidence(token()) is None


def test_what_cannot_come_has_a_finite_logprob() -> None:
    assert token_confidence(token(0.0, -math.inf)) == token_confidence(token(0.0, -9999.0)) == 50.0


def test_a_probability_is_normalised_by_length() -> None:
    assert mean_probability([math.log(0.5)] * 3) == pytest.approx(mean_probability([math.log(0.5)] * 300))
    assert mean_probability([math.log(0.4), math.log(0.9)]) == pytest.approx(0.6)
    assert mean_probability([]) == 0.0


def test_groups_slide_by_one_token_and_are_whole() -> None:
    values = [4.0, 2.0, 0.0, 4.0]
    assert groups(values, 2) == [3.0, 1.0, 2.0]
    assert groups(values, 4) == groups(values, 2048) == [2.5]
    assert groups([], 3) == []
    assert (lowest(values, 2), tail(values, 2), mean(values, 2)) == (1.0, 2.0, 2.5)
    assert lowest([], 2) == bottom([], 2) == tail([], 2) == mean([], 2) == 0.0


def test_the_bottom_is_a_tenth_of_the_groups() -> None:
    assert bottom([float(i) for i in range(20)], 1) == 0.5
    assert bottom([3.0, 1.0, 2.0], 1) == 1.0


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)])
def test_a_percentile_lies_between_neighbours(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(value)
    assert percentile([5.0], share) == 5.0


@given(CONFIDENCES, st.integers(1, 10), st.floats(0, 20), st.integers(1, 5))
def test_a_watch_gives_up_where_a_group_falls_below_the_bar(
    values: list[float], window: int, bar: float, size: int
) -> None:
    def falls(values: list[float]) -> bool:
        return len(values) >= window and lowest(values, window) < bar

    assume(all(abs(group - bar) > 1e-6 for group in groups(values, window)))
    grown: list[float] = []
    watch = Watch(grown, window, bar)
    for start in range(0, len(values), size):
        grown += values[start : start + size]
        assert watch() != falls(grown)
        if falls(grown):
            break


def test_rounding_does_not_lower_a_trace() -> None:
    values = [0.1] * 300
    assert Watch(values, 7, 0.1)()
    assert reaches(lowest(values, 7), 0.1)
    assert not reaches(0.09, 0.1)


def trace(key: str | None, confidence: float) -> Trace:
    return Trace(Sample(), key, confidence)


def test_the_surest_share_of_a_ballot_votes() -> None:
    ballot = Ballot([trace("a", 1.0), trace("b", 2.0), trace("b", 3.0), trace("a", 4.0), trace(None, 9.0)])
    ballot.set_bar(0.5)
    assert ballot.bar == 2.5
    assert ballot.weights == [0, 0, 3.0, 4.0, 9.0]
    assert ballot.share == pytest.approx(4 / 7)
    ballot.set_bar(1.0)
    assert ballot.share == 0.5


def test_a_ballot_without_answers_has_no_leader() -> None:
    assert Ballot().share == 0
    ballot = Ballot([trace(None, 1.0), trace(None, 3.0)])
    ballot.set_bar(0.1)
    assert (ballot.share, ballot.bar) == (0.0, pytest.approx(2.8))
    Ballot().set_bar(0.5)


@pytest.mark.parametrize(("asked", "tops"), [(None, None), (0, 0), (1, 1), (3, 3)])
def test_a_reader_hands_on_what_was_asked_for(asked: int | None, tops: int | None) -> None:
    seen: list[int | None] = []

    def script(request: object) -> FakeReply:
        seen.append(request.sampling.logprobs)  # type: ignore[attr-defined]
        return FakeReply("one two", {"one": 0.5, " two": 0.25, "c": 0.125})

    reader = LogprobReader(FakeEngine(script), 2, token_confidence)

    async def main() -> list[Chunk]:
        async with aclosing(reader.generate(TASK.prompt, Sampling(logprobs=asked), 2)) as chunks:
            return [chunk async for chunk in chunks]

    chunks = asyncio.run(main())
    assert seen == [max(2, asked or 0)] * 2
    wanted = -math.log(0.125) / 2 if asked != 3 else -math.log(0.5 * 0.25 * 0.125) / 3
    assert reader.readings == {0: pytest.approx([wanted] * 2), 1: pytest.approx([wanted] * 2)}
    told = {len(logprob.top) for chunk in chunks for logprob in chunk.logprobs}
    assert told == (set() if tops is None else {tops})


def test_a_reader_is_an_engine() -> None:
    engine = FakeEngine(model="m", max_model_len=99, continues=False)
    reader = LogprobReader(engine, 0, lambda token: token.logprob)
    assert (reader.model, reader.max_model_len, reader.continues) == ("m", 99, False)
    reader = LogprobReader(FakeEngine(), 0, lambda token: token.logprob)
    assert asyncio.run(reader.encode(TASK.prompt)) == asyncio.run(FakeEngine().encode(TASK.prompt))


def test_only_what_was_asked_for_stays_of_a_chunk() -> None:
    chunk = Chunk(0, "x", logprobs=(token(-1.0, -2.0),))
    assert only_asked(chunk, None) == Chunk(0, "x")
    assert only_asked(chunk, 1) == replace(chunk, logprobs=(token(-1.0),))
    assert only_asked(chunk, 20) == chunk


def candidates(*answers: str | None) -> list[Candidate]:
    return [Candidate(Sample([Chunk(0, f"text {a}", finish_reason="eos")]), a) for a in answers]


def test_weights_elect_and_are_no_scores() -> None:
    final = asyncio.run(elect_by([7.0, 7.0, 13.0], candidates("1", "1", "2")))
    assert final.best.answer == "1"
    assert [c.weight for c in final.candidates] == [7.0, 7.0, 13.0]
    assert final.confidence == pytest.approx(14 / 27)
    assert all(c.score is None for c in final.candidates)
    final = asyncio.run(elect_by([7.0, 7.0, 13.0], candidates("1", "1", "2"), "best"))
    assert (final.best.answer, final.confidence, final.selector) == ("2", None, "best")


def test_without_an_answer_the_heaviest_is_elected() -> None:
    final = asyncio.run(elect_by([7.0, 13.0], candidates(None, None)))
    assert (final.ranking, final.confidence) == ((1, 0), None)
