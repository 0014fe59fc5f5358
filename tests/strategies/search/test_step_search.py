"""What all step searches share."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from searching import TASK, broken, search, world

from prm import FakePRM, OnTokens, StepScores
from prm.base import refuse
from strategies import get
from strategies.core.account import Budget
from strategies.search.stop_strings import first_stop
from tts_server.engines.fake import FakeEngine, FakeRequest, Script, encode


@pytest.mark.parametrize("name", ["beam_search", "dvts", "rebase", "particle_filter"])
def test_a_failed_branch_is_shown_and_has_no_vote(name: str) -> None:
    done = asyncio.run(search(get(name), FakeEngine(broken(world(p=1.0), 3)), FakePRM(), n=4))
    failed = [c for c in done.final.candidates if c.sample.finish_reason == "error"]
    assert failed
    assert all(isinstance(c.sample.chunks[-1].error, ConnectionError) for c in failed)
    assert all(c.answer is None and c.weight == 0 for c in failed)
    assert done.final.best.answer == "1"


def test_steps_that_could_not_be_scored_are_shown() -> None:
    calls = 0

    def once(question: str, steps: object) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("the reward model is gone")
        assert isinstance(steps, tuple)
        return [0.5] * len(steps)

    options = {"n": 8, "beam_width": 4, "selector": "majority"}
    done = asyncio.run(search(get("dvts"), FakeEngine(world(p=1.0)), FakePRM(once), **options))
    errors = [c.sample.chunks[-1].error for c in done.final.candidates if c.sample.finish_reason == "error"]
    assert errors
    assert all("gone" in str(error) for error in errors)
    assert done.final.best.answer == "1"


def test_the_least_length_is_the_whole_answer_s() -> None:
    seen: list[tuple[int, int | None]] = []

    def long(request: FakeRequest) -> str:
        done = request.text.partition("<assistant>")[2]
        seen.append((len(encode(done)), request.sampling.min_tokens))
        return world()(request)

    task = replace(TASK, sampling=replace(TASK.sampling, min_tokens=12, max_tokens=40))
    done = asyncio.run(search(get("beam_search"), FakeEngine(long), FakePRM(), task=task, n=2))
    assert done.final.best.sample.completion_tokens >= 12
    assert {least for length, least in seen if length == 0} == {12}
    assert all((least or 0) == max(0, 12 - length) for length, least in seen)


def said_once(text: str) -> Script:
    """A policy that says one text, and goes on in it from wherever its prompt ends."""

    def script(request: FakeRequest) -> str:
        done = request.text.rpartition("<assistant>")[2]
        assert text.startswith(done)
        return text[len(done) :]

    return script


STEP_SEARCHES = ["beam_search", "dvts", "mcts", "rebase", "particle_filter"]
TEXT = "She has 7 * 3 apples.\n\nThat is\n\n21, naïve 👍🏽 so \\boxed{21}.\n\nQuestion: 4 + 5?\n\nIt is \\boxed{9}."
STOPS = {
    "begins with the separator": ("\n\nQuestion:",),
    "of one character": ("👍",),
    "across three steps": ("apples.\n\nThat is\n\n21",),
    "the separator": ("\n\n",),
    "in the separator": ("\n",),
    "in the first token": ("Sh",),
    "several": ("5?\n\nIt", "Question: 4", "\n\nQuestion: 4 + 5", "never"),
    "ends with the separator": (" so \\boxed{21}.\n\n",),
    "nowhere": ("never",),
}


@pytest.mark.parametrize("name", STEP_SEARCHES)
@pytest.mark.parametrize("stops", STOPS.values(), ids=STOPS)
def test_a_stop_string_ends_the_answer_wherever_steps_end(name: str, stops: tuple[str, ...]) -> None:
    found = first_stop(TEXT, stops)
    for step_tokens in (None, 1, 2, 3, 5, 7):
        engine = FakeEngine(said_once(TEXT))
        task = replace(TASK, sampling=replace(TASK.sampling, stop=stops))
        options = {"n": 2, "step_tokens": step_tokens, "max_steps": 200}
        done = asyncio.run(search(get(name), engine, FakePRM(), task=task, **options))
        best = done.final.best
        assert best.text == (TEXT[: found.start] if found else TEXT)
        assert best.sample.finish_reason == ("stop" if found else "eos")
        assert best.sample.chunks[-1].stop == (found.text if found else None)
        assert not any(found and stop in candidate.text for candidate in done.final.candidates for stop in stops)
        assert done.account.usage.completion_tokens == engine.generated


def test_a_stop_string_within_the_least_length_ends_nothing() -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, stop=("beta", "STOP"), min_tokens=5))
    options = {"n": 2, "step_tokens": 2, "max_steps": 200}
    engine = FakeEngine(said_once("alpha beta gamma delta STOP beta STOP"))
    done = asyncio.run(search(get("beam_search"), engine, FakePRM(), task=task, **options))
    assert done.final.best.text == "alpha beta gamma delta STOP "


def test_nothing_is_generated_past_a_stop_string_that_begins_before() -> None:
    engine = FakeEngine(said_once("one\n\nQuestion: " + "word " * 500))
    task = replace(TASK, sampling=replace(TASK.sampling, stop=("\n\nQuestion:",)))
    done = asyncio.run(search(get("beam_search"), engine, FakePRM(), task=task, n=2))
    assert done.final.best.text == "one"
    assert done.account.usage.completion_tokens == engine.generated < 40


def test_a_search_goes_on_from_what_a_stop_string_ended() -> None:
    """Particle Gibbs keeps the beginning of a particle, which may lie before the string and inside of it."""
    task = replace(TASK, sampling=replace(TASK.sampling, stop=("STOPHERE",)))
    engine = FakeEngine(said_once("alpha beta gammaSTOPHERE delta"))
    options = {"n": 3, "iterations": 3, "step_tokens": 3}
    done = asyncio.run(search(get("particle_filter"), engine, FakePRM(), task=task, **options))
    assert {candidate.text for candidate in done.final.candidates} == {"alpha beta gamma"}


def test_steps_end_at_blank_lines_of_either_kind() -> None:
    seen: list[tuple[str, ...]] = []

    def score(question: str, steps: Sequence[str]) -> list[float]:
        seen.append(tuple(steps))
        return [0.5] * len(steps)

    engine = FakeEngine(said_once("one\r\n\r\ntwo\r\nmore\r\n\r\nthree"))
    done = asyncio.run(search(get("beam_search"), engine, FakePRM(score), n=1))
    assert max(seen, key=len) == ("one", "two\r\nmore", "three")
    assert done.final.best.text == "one\r\n\r\ntwo\r\nmore\r\n\r\nthree"


class Brief(FakePRM):
    """Reads so many steps at most, and notes what it was asked."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.asked: list[tuple[str, ...]] = []

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.asked += map(tuple, solutions)
        refuse({i: "too long" for i, steps in enumerate(solutions) if len(steps) > self.most})
        return await super().score(question, solutions, on_tokens=on_tokens)


@pytest.mark.parametrize("name", STEP_SEARCHES)
def test_a_branch_too_long_to_be_scored_goes_on_without_scores_and_is_not_asked_about_again(name: str) -> None:
    prm = Brief(2)
    done = asyncio.run(search(get(name), FakeEngine(world(p=1.0, steps=5)), prm, n=4))
    assert done.final.best.answer == "1"
    assert done.final.best.sample.finish_reason == "eos"
    assert {c.unscorable for c in done.final.candidates} == {"too long"}
    assert {c.score for c in done.final.candidates} == {None}
    assert done.final.confidence == 1.0
    assert {len(steps) for steps in prm.asked} == {1, 2, 3}


def test_a_lookahead_too_long_to_be_scored_is_left_out() -> None:
    done = asyncio.run(search(get("beam_search"), FakeEngine(world(p=1.0, steps=3)), Brief(3), n=2, lookahead=3))
    scored = [c.step_scores for c in done.final.candidates]
    assert [len(scores or ()) for scores in scored] == [3] * len(scored)
    short = asyncio.run(search(get("beam_search"), FakeEngine(world(p=1.0, steps=3)), Brief(2), n=2, lookahead=1))
    assert {c.unscorable for c in short.final.candidates} == {"too long"}
    assert short.final.best.answer == "1"


@pytest.mark.parametrize("name", STEP_SEARCHES)
@pytest.mark.parametrize("most", [1, 3, 5, 8])
def test_a_search_begins_no_more_solutions_than_its_budget_and_ends_them(name: str, most: int) -> None:
    budget = Budget(max_samples=most)
    done = asyncio.run(search(get(name), FakeEngine(world(steps=6)), FakePRM(), budget=budget, n=8))
    assert done.account.usage.samples <= most
    assert (done.account.stop_reason == "max_samples") == (most < 8)
    assert done.final.best.sample.finish_reason == "eos"
    assert name == "mcts" or len(done.final.candidates) <= most
