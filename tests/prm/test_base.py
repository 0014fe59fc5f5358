"""The contract's own checks."""

import math

import pytest

import prm
from prm import FakePRM, PRMError, PRMInputError, ProcessRewardModel, StepScores, check_scores, check_solutions


def test_exports_are_complete_and_sorted() -> None:
    assert all(hasattr(prm, name) for name in prm.__all__)
    constants = [name for name in prm.__all__ if name.isupper()]
    classes = [name for name in prm.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in prm.__all__ if name[0].islower()]
    assert prm.__all__ == sorted(constants) + sorted(classes) + sorted(functions)


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_a_score_is_a_probability(score: float) -> None:
    assert StepScores((score,)).scores == (score,)


@pytest.mark.parametrize("score", [-0.01, 1.01, math.nan, math.inf])
def test_what_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(PRMError, match=r"a number in \[0, 1\]"):
        StepScores((0.5, score))


def test_a_count_that_does_not_match_is_an_error() -> None:
    check_scores([["a", "b"], ["c"]], [StepScores((0.1, 0.2)), StepScores((0.3,))])
    for results in ([StepScores((0.1,)), StepScores((0.3,))], [StepScores((0.1, 0.2))], []):
        with pytest.raises(PRMError, match="solutions of"):
            check_scores([["a", "b"], ["c"]], results)


def test_solutions_that_say_something_pass() -> None:
    check_solutions([])
    check_solutions([["a"], ["b", " c\n"]])


@pytest.mark.parametrize(
    ("solutions", "said"),
    [
        ([["a"], []], "solution 1 has no steps"),
        ([["a", ""]], "step 1 of solution 0 is empty"),
        ([["a"], ["\n \t", "b"], []], "step 0 of solution 1 is empty"),
    ],
)
def test_an_empty_solution_or_step_is_refused_with_its_place(solutions: list[list[str]], said: str) -> None:
    with pytest.raises(PRMInputError, match=said) as caught:
        check_solutions(solutions)
    assert caught.value.param == "steps"
    assert caught.value.faults == {i: fault for i, fault in caught.value.faults.items() if f"solution {i}" in fault}
    assert len(caught.value.faults) == sum(not all(map(str.strip, steps)) or not steps for steps in solutions)


def test_a_reward_model_is_known_by_its_shape() -> None:
    assert isinstance(FakePRM(), ProcessRewardModel)
