"""The reward model without a model."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm import FakePRM, PRMError, StepScores

steps = st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1)


def score(prm: FakePRM, question: str, *solutions: list[str]) -> list[StepScores]:
    return asyncio.run(prm.score(question, solutions))


def test_the_callable_sees_question_and_steps() -> None:
    prm = FakePRM(lambda question, steps: [len(question) / 10 for _ in steps])
    assert [r.scores for r in score(prm, "12345", ["a", "b"], ["c"])] == [(0.5, 0.5), (0.5,)]


@given(st.text(), steps, st.text(min_size=1).filter(lambda text: text.strip()))
def test_drawn_scores_repeat_and_stay_when_the_solution_grows(question: str, steps: list[str], more: str) -> None:
    first, grown = score(FakePRM(), question, steps, [*steps, more])
    assert grown.scores[:-1] == first.scores
    assert score(FakePRM(), question, steps) == [first]


def test_drawn_scores_differ_by_seed_question_and_steps() -> None:
    drawn = {
        score(FakePRM(seed=seed), question, [step])[0].scores for seed in (0, 1) for question in "qr" for step in "ab"
    }
    assert len(drawn) == 8


def test_tokens_are_words_or_what_is_said() -> None:
    def told(prm: FakePRM) -> list[int]:
        tokens: list[int] = []
        asyncio.run(prm.score("what is it", [["one two", "three"], ["four"]], on_tokens=tokens.append))
        return tokens

    assert told(FakePRM()) == [6, 4]
    assert told(FakePRM(tokens=7)) == [7, 7]


def test_solutions_that_were_scored_before_a_failure_are_told() -> None:
    def scorer(question: str, steps: Sequence[str]) -> list[float]:
        if "down" in steps:
            raise PRMError("down")
        return [0.5 if step == "a" else 1.5 for step in steps]

    def told(*solutions: list[str]) -> int:
        tokens: list[int] = []
        with pytest.raises(PRMError):
            asyncio.run(FakePRM(scorer, tokens=3).score("q", solutions, on_tokens=tokens.append))
        return sum(tokens)

    assert told(["a"], ["down"], ["a"]) == 3
    assert told(["a"], ["no probability"], ["a"]) == 6


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.5, 0.5], [0.5, 1.5]])
def test_scores_that_do_not_fit_are_an_error(scores: list[float]) -> None:
    with pytest.raises(PRMError):
        score(FakePRM(lambda question, steps: scores), "q", ["a", "b"])


def test_the_callables_own_error_passes() -> None:
    def fail(question: str, steps: object) -> list[float]:
        raise PRMError("down")

    with pytest.raises(PRMError, match="down"):
        score(FakePRM(fail), "q", ["a"])
