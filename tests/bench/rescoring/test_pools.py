"""Stored samples become what the server would vote on."""

import asyncio

import pytest

from bench.rescoring.pools import answered
from bench.stored.records import Record, SampleRecord


def test_answers_are_read_keyed_and_graded_as_the_server_does_it() -> None:
    record = Record(
        gold="1/2",
        samples=(
            SampleRecord(text="So it is \\boxed{0.5}.", finish_reason="stop"),
            SampleRecord(answer="\\frac12"),
            SampleRecord(text="I think 3 apples", finish_reason="length"),
            SampleRecord(text="The answer is 3."),
            SampleRecord(text="\\boxed{1/2}", answer="1/2", finish_reason="error", error="the engine died"),
        ),
    )
    (problem,) = asyncio.run(answered([record]))
    assert problem.answers == ("0.5", "\\frac12", None, "3", None)
    assert problem.keys[0] == problem.keys[1] != problem.keys[3]
    assert problem.correct == (True, True, False, False, False)
    samples = problem.pool()
    assert [c.sample.finish_reason for c in samples.candidates] == ["stop", "stop", "length", "stop", "error"]


def test_scores_are_the_stored_ones_or_aggregated() -> None:
    record = Record(gold="1", samples=(SampleRecord(answer="1", score=0.9, step_scores=(0.5, 0.25)),))
    (problem,) = asyncio.run(answered([record]))
    assert [problem.pool(how).candidates[0].score for how in (None, "min", "prod")] == [0.9, 0.25, 0.125]


@pytest.mark.parametrize(
    ("sample", "stored", "by_step"),
    [
        (SampleRecord(answer="1", score=0.5), None, 0),
        (SampleRecord(answer="1", step_scores=(0.5,)), 0, None),
        (SampleRecord(answer="1", step_scores=()), 0, 0),
        (SampleRecord(answer="1", score=float("nan")), 0, 0),
        (SampleRecord(text="no answer, so nothing to choose"), None, None),
        (SampleRecord(error="failed"), None, None),
    ],
)
def test_a_sample_that_could_be_chosen_and_has_no_score_is_named(
    sample: SampleRecord, stored: int | None, by_step: int | None
) -> None:
    (problem,) = asyncio.run(answered([Record(gold="1", samples=(sample,))]))
    assert problem.unscored(None) == stored
    assert problem.unscored("min") == by_step
