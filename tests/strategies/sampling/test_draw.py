import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from searching import TASK, BreakingEngine, broken, search, world

import strategies
from prm import FakePRM, OnTokens, StepScores
from strategies.core.account import Account, Budget
from strategies.core.contracts import (
    Candidate,
    Chunk,
    Engine,
    FinishReason,
    Progress,
    Reading,
    Refused,
    Sample,
    Sampling,
    Selector,
)
from strategies.core.metered import MeteredEngine
from strategies.sampling.draw import (
    TEMPERATURE,
    candidates_of,
    draw,
    elect,
    sample_line,
    scored,
    with_temperature,
)
from tts_server.engines.fake import FakeEngine, FakeRequest


def sample(text: str, reason: FinishReason | None = "eos", error: Exception | None = None) -> Sample:
    return Sample([Chunk(0, text, finish_reason=reason, error=error)])


async def drawn(engine: Engine, n: int, budget: Budget | None = None) -> tuple[list[Sample], list[Progress]]:
    samples: list[Sample] = []
    async with aclosing(draw(TASK, MeteredEngine(engine, Account(budget or Budget())), n, samples)) as progress:
        return samples, [line async for line in progress]


def test_samples_come_in_their_order_and_each_end_is_told() -> None:
    def script(request: FakeRequest) -> str:
        return "so " * (4 - request.index) + rf"\boxed{{{request.index}}}"

    samples, lines = asyncio.run(drawn(FakeEngine(script), 3))
    assert [s.text[-2] for s in samples] == ["0", "1", "2"]
    assert [line.text for line in lines] == [
        "3 samples are under way",
        "sample 3 (eos, 5 tokens) answers 2",
        "sample 2 (eos, 6 tokens) answers 1",
        "sample 1 (eos, 7 tokens) answers 0",
    ]


def test_progress_tells_of_a_sample_without_an_answer() -> None:
    _, lines = asyncio.run(drawn(FakeEngine(lambda request: "no idea"), 1))
    assert lines[-1].text == "sample 1 (eos, 3 tokens) gives no answer"


def test_samples_that_must_differ_have_a_temperature() -> None:
    seen: list[Sampling] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.sampling)
        return "x"

    asyncio.run(drawn(FakeEngine(script), 1))
    asyncio.run(drawn(FakeEngine(script), 2))
    assert [s.temperature for s in seen] == [None, TEMPERATURE, TEMPERATURE]
    assert all(replace(s, temperature=None) == TASK.sampling for s in seen)
    assert with_temperature(Sampling(temperature=0.0)).temperature == 0.0


def test_a_spent_budget_leaves_fewer_samples_or_none() -> None:
    samples, lines = asyncio.run(drawn(FakeEngine(world()), 4, Budget(max_samples=2)))
    assert len(samples) == 2
    assert len(lines) == 3
    assert asyncio.run(drawn(FakeEngine(world()), 4, Budget(max_samples=0))) == ([], [])
    samples, _ = asyncio.run(drawn(FakeEngine(world()), 4, Budget(max_tokens=1)))
    assert [s.finish_reason for s in samples] == ["budget"] * 4


def test_a_failed_sample_is_kept_with_its_cause() -> None:
    samples, lines = asyncio.run(drawn(FakeEngine(broken(world(), 1)), 3))
    assert [s.finish_reason for s in samples] == ["eos", "error", "eos"]
    assert str(samples[1].chunks[-1].error) == "sample 1 is lost"
    assert sum("(error, 0 tokens) gives no answer" in line.text for line in lines) == 1


def test_an_engine_that_breaks_ends_what_still_grew() -> None:
    samples, _ = asyncio.run(drawn(BreakingEngine(world(gap=3)), 3))
    assert [s.finish_reason for s in samples] == ["eos", "error", "error"]
    assert all(isinstance(s.chunks[-1].error, ConnectionError) for s in samples[1:])
    assert samples[1].text


def test_candidates_have_answers_and_failed_ones_none() -> None:
    samples = [
        sample(r"\boxed{5}"),
        sample("perhaps 6", "length"),
        sample(r"\boxed{7}", "error", ValueError()),
        sample(r"\boxed{8} and", "budget"),
    ]
    candidates = candidates_of(samples)
    assert [c.answer for c in candidates] == ["5", None, None, "8"]
    assert [c.sample for c in candidates] == samples


def test_without_samples_there_is_an_empty_unfinished_candidate() -> None:
    (only,) = candidates_of([])
    assert (only.text, only.answer, only.sample.finish_reason) == ("", None, "budget")


class Noting(FakePRM):
    """Remembers its calls."""

    def __init__(self) -> None:
        super().__init__(lambda question, steps: [0.9, *[0.4] * (len(steps) - 1)], aggregation="last")
        self.calls: list[tuple[str, list[Sequence[str]]]] = []

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.calls.append((question, list(solutions)))
        return await super().score(question, solutions, on_tokens=on_tokens)


def test_all_are_scored_in_one_call_and_by_their_steps() -> None:
    prm = Noting()
    samples = [sample("one\n\ntwo\n\n"), sample(" \n\n"), sample("lost", "error", ValueError()), sample("alone")]
    marked = asyncio.run(scored(TASK, candidates_of(samples), prm, None))
    assert prm.calls == [("Is it 1 or 0?", [("one", "two"), ("alone",)])]
    assert [c.step_scores for c in marked] == [(0.9, 0.4), None, None, (0.9,)]
    assert [c.score for c in marked] == [0.4, None, None, 0.9]
    assert [c.sample for c in marked] == samples


def test_an_aggregation_of_the_request_is_used() -> None:
    (marked,) = asyncio.run(scored(TASK, candidates_of([sample("one\n\ntwo")]), Noting(), "mean"))
    assert marked.score == pytest.approx(0.65)


def test_what_has_no_text_is_not_scored_at_all() -> None:
    prm = Noting()
    marked = asyncio.run(scored(TASK, candidates_of([]), prm, None))
    assert prm.calls == []
    assert marked[0].score is None


CANDIDATES = [
    Candidate(sample("a"), "0.5", score=0.2),
    Candidate(sample("b"), "2", score=0.9),
    Candidate(sample("c"), r"\frac{1}{2}", score=0.3),
    Candidate(sample("d"), None, score=1.0),
]


@pytest.mark.parametrize(
    ("selector", "first", "confidence"), [("majority", "0.5", 2 / 3), ("weighted", "2", 0.9 / 1.4), ("best", None, 1.0)]
)
def test_a_selector_elects_among_equal_answers(selector: Selector, first: str | None, confidence: float) -> None:
    final = asyncio.run(elect(CANDIDATES, selector))
    assert final.selector == selector
    winner = final.best.answer
    assert winner == first or {winner, first} == {"0.5", r"\frac{1}{2}"}
    assert final.confidence == pytest.approx(confidence)
    assert [c.sample for c in final.candidates] == [c.sample for c in CANDIDATES]
    assert sorted(final.ranking) == [0, 1, 2, 3]
    assert sum(v.count for v in final.votes) == 3


def formed(text: str, answer: str | None, fault: str | None = None) -> Sample:
    """A sample that was read in a form which its request fixed."""
    return Sample([Chunk(0, text=text, finish_reason="eos", reading=Reading(answer, fault))])


def test_what_a_form_reads_is_the_answer_letter_by_letter() -> None:
    samples = [formed("x", "[2/4]"), formed("x", "[1/2]"), formed("x", "[2/4]"), formed("\\boxed{1}", None, "no JSON")]
    candidates = candidates_of(samples)
    assert [c.answer for c in candidates] == ["[2/4]", "[1/2]", "[2/4]", None]
    final = asyncio.run(elect(candidates, "majority"))
    assert [(vote.answer, vote.count) for vote in final.votes] == [("[2/4]", 2), ("[1/2]", 1)]
    assert final.ranking == (0, 1, 2, 3)


def test_what_is_not_in_the_form_has_no_chance_either() -> None:
    samples = [formed("a", None, "no JSON"), formed("b", "1"), formed("c", "2")]
    candidates = [replace(c, score=s) for c, s in zip(candidates_of(samples), (0.9, 0.1, 0.2), strict=True)]
    for selector in ("best", "weighted"):
        assert asyncio.run(elect(candidates, selector)).ranking == (2, 1, 0)  # type: ignore[arg-type]
    only = candidates_of([formed("a", None, "no JSON"), formed("bb", None, "no JSON")])
    final = asyncio.run(elect(only, "majority"))
    assert (set(final.ranking), final.votes, final.confidence) == ({0, 1}, (), None)


def test_progress_tells_why_a_sample_has_no_vote() -> None:
    sample = formed("a", None, "it is not JSON")
    assert sample_line(sample.chunks[-1], sample).endswith("gives no answer: it is not JSON")


@pytest.mark.parametrize("name", ["budget_forcing", "early_exit", "chain_of_action_thought"])
def test_an_answer_that_was_changed_has_no_logprobs(name: str) -> None:
    task = replace(TASK, sampling=Sampling(logprobs=0))
    engine = FakeEngine(world())
    with pytest.raises(Refused) as caught:
        asyncio.run(search(strategies.get(name), engine, None, task=task))
    assert caught.value.param == "logprobs"
    assert engine.generated == 0
