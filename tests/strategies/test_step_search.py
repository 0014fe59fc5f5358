"""What all step searches share."""

import asyncio
from dataclasses import replace

import pytest
from searching import TASK, broken, search, world

from prm import FakePRM
from strategies import get
from tts_server.engines.fake import FakeEngine, FakeRequest, encode


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
