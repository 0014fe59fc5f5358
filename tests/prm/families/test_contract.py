"""A family on a backend, both without a model."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from patience import NEVER_S

from prm import Aggregation, Classes, FamilyPRM, Head, Layout, OnTokens, PRMError, PRMInputError, ProcessRewardModel
from prm.families.contract import labels, layout


class Characters:
    """A family whose tokens are characters."""

    name = "characters"
    aggregation: Aggregation = "min"
    head: Head = Classes(right=1)

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        return (layout(tuple(map(ord, question)), (tuple(map(ord, step)) for step in steps)),)


class Endings(Characters):
    """A layout a step."""

    def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
        return tuple(layout((), [tuple(map(ord, step))]) for step in steps)


class Counting:
    """Scores a step end by the token there, and notes what it reads."""

    max_len = 10

    def __init__(self, lost: int = 0) -> None:
        self.calls: list[list[Layout]] = []
        self._lost = lost

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        self.calls.append(list(layouts))
        if on_tokens:
            on_tokens(sum(len(each.token_ids) for each in layouts))
        read = [tuple(each.token_ids[end] / 200 for end in each.ends) for each in layouts]
        return [scores[self._lost :] for scores in read]


def test_a_layout_is_read_once_and_scores_stay_in_order() -> None:
    backend, tokens = Counting(), list[int]()
    prm = FamilyPRM(Characters(), backend, "mine")
    assert isinstance(prm, ProcessRewardModel)
    assert (prm.name, prm.aggregation) == ("mine", "min")
    solutions = [["ab", "cd"], ["x"], ["ab", "cd"]]
    results = asyncio.run(prm.score("q", solutions, on_tokens=tokens.append))
    assert [r.scores for r in results] == [(ord("b") / 200, ord("d") / 200), (ord("x") / 200,), (0.49, 0.5)]
    assert [[each.ends for each in call] for call in backend.calls] == [[(2, 4), (1,)]]
    assert sum(tokens) == 7


def test_a_family_may_have_a_layout_a_step() -> None:
    backend = Counting()
    results = asyncio.run(FamilyPRM(Endings(), backend, "mine").score("q", [["ab", "cd"], ["cd"]]))
    assert [r.scores for r in results] == [(0.49, 0.5), (0.5,)]
    assert len(backend.calls[0]) == 2


def test_what_is_too_long_is_refused_before_anything_is_read() -> None:
    backend = Counting()
    with pytest.raises(PRMInputError, match="solution 1 are 11 tokens for 'mine', more than its limit of 10") as caught:
        asyncio.run(FamilyPRM(Characters(), backend, "mine").score("q", [["a"], ["a" * 5, "b" * 5], ["c" * 20]]))
    assert caught.value.param == "steps"
    assert list(caught.value.faults) == [1, 2]
    assert backend.calls == []


@pytest.mark.parametrize("steps", [[], [""], ["a", " \n\t"]])
def test_a_step_that_says_nothing_is_refused(steps: list[str]) -> None:
    with pytest.raises(PRMInputError):
        asyncio.run(FamilyPRM(Characters(), Counting(), "mine").score("q", [steps]))


def test_a_backend_that_loses_a_score_is_an_error() -> None:
    with pytest.raises(PRMError, match="one score a step end"):
        asyncio.run(FamilyPRM(Characters(), Counting(lost=1), "mine").score("q", [["a", "b"]]))


def test_no_solutions_are_not_read() -> None:
    backend = Counting()
    assert asyncio.run(FamilyPRM(Characters(), backend, "mine").score("q", [])) == []
    assert backend.calls == []


def test_a_config_that_leaves_out_its_labels_has_two() -> None:
    assert labels({}) == 2
    assert labels({"id2label": {"0": "LABEL_0"}}) == 1


def test_a_very_long_text_is_laid_out_beside_the_event_loop() -> None:
    class Slow(Characters):
        def layouts(self, question: str, steps: Sequence[str]) -> tuple[Layout, ...]:
            assert free.wait(NEVER_S)
            return super().layouts(question, steps[:1])

    async def main() -> None:
        call = asyncio.create_task(FamilyPRM(Slow(), Counting(), "mine").score("q", [["a"] * 200_000]))
        await asyncio.sleep(0)
        free.set()
        with pytest.raises(PRMError, match=r"\[200000\] steps"):
            await call

    free = threading.Event()
    asyncio.run(main())
