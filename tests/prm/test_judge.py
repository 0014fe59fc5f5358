"""The judge on a verifier that the test writes."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import takewhile

import pytest

from prm import Judge, OnTokens, PRMError, PRMInputError, StepScores
from prm.judge import Chat, judge_chat


class Notes:
    """A verifier that notes what it is asked, each chat for ten tokens."""

    def __init__(self, verdict: Callable[[str], float] = lambda text: 0.5) -> None:
        self.asked: list[str] = []
        self.calls = 0
        self._verdict = verdict

    async def __call__(self, chats: Sequence[Chat], *, on_tokens: OnTokens | None = None) -> list[float]:
        self.calls += 1
        texts = [chat[-1]["content"] for chat in chats]
        self.asked += texts
        if on_tokens:
            for _ in chats:
                on_tokens(10)
        return [self._verdict(text) for text in texts]


def score(notes: Notes, *solutions: list[str]) -> list[StepScores]:
    return asyncio.run(Judge(notes).score("What is it?", solutions))


def test_step_k_is_judged_with_the_steps_up_to_it() -> None:
    notes = Notes(lambda text: 0.9 if "third" not in text else 0.2)
    assert score(notes, ["first", "second", "third"]) == [StepScores((0.9, 0.9, 0.2))]
    assert ["second" in text for text in notes.asked] == [False, True, True]
    assert all("What is it?" in text and "first" in text for text in notes.asked)


def test_a_beginning_that_candidates_share_is_asked_and_paid_once() -> None:
    notes = Notes(lambda text: len(text) % 7 / 7)
    tokens: list[int] = []
    solutions = [["a", "b"], ["a", "c"], ["a", "b"]]
    one, two, same = asyncio.run(Judge(notes).score("What is it?", solutions, on_tokens=tokens.append))
    assert len(notes.asked) == len(set(notes.asked)) == 3
    assert notes.calls == 1
    assert one.scores == same.scores
    assert one.scores[0] == two.scores[0]
    assert sum(tokens) == 30


def test_equal_steps_after_different_beginnings_are_different_questions() -> None:
    notes = Notes()
    score(notes, ["a", "x"], ["b", "x"])
    assert len(set(notes.asked)) == 4


def test_a_chat_shares_all_but_its_end_with_the_next_step_and_with_other_solutions() -> None:
    def shared(*solutions: list[str]) -> str:
        texts = [judge_chat("What is it?", steps)[-1]["content"] for steps in solutions]
        return "".join(a for a, *_ in takewhile(lambda same: len(set(same)) == 1, zip(*texts, strict=False)))

    # The blank line after a step belongs to what is shared: tokenizers merge it with the step's end.
    assert shared(["First.", "Second."], ["First.", "Second.", "Third."]).endswith("Second.\n\n")
    assert shared(["First.", "Xyz"], ["First.", "Abc"]).endswith("First.\n\n")
    assert "What is it?" in shared(["Xyz"], ["Abc"])


def test_the_chat_ends_with_the_question_about_it() -> None:
    chat = judge_chat("q", ["<|im_end|> ¿por qué? \n"])
    assert [turn["role"] for turn in chat] == ["user"]
    assert "<|im_end|> ¿por qué?\n\n" in chat[-1]["content"]
    assert chat[-1]["content"].endswith("Answer Yes or No.")


def test_nothing_to_score_asks_nothing() -> None:
    notes = Notes()
    assert score(notes) == []
    assert notes.calls == 0


def test_a_verifier_that_loses_a_verdict_is_an_error() -> None:
    async def forgetful(chats: Sequence[Chat], *, on_tokens: OnTokens | None = None) -> list[float]:
        return [0.5] * (len(chats) - 1)

    with pytest.raises(PRMError, match="1 verdicts for 2 chats"):
        asyncio.run(Judge(forgetful).score("q", [["a", "b"]]))


def test_a_verdict_that_is_no_probability_is_an_error() -> None:
    with pytest.raises(PRMError, match="in \\[0, 1\\]"):
        score(Notes(lambda text: float("nan")), ["a"])


def test_an_untrained_judge_is_read_by_its_gravest_doubt_and_weighs_votes() -> None:
    judge = Judge(Notes(), name="self")
    assert (judge.name, judge.aggregation, judge.selector, judge.trained) == ("self", "min", "weighted", False)


def test_what_is_too_long_is_named_and_the_others_scores_are_told_with_it() -> None:
    class Short(Notes):
        async def __call__(  # type: ignore[override]
            self, chats: Sequence[Chat], *, on_tokens: OnTokens | None = None
        ) -> list[float | PRMInputError]:
            verdicts = await super().__call__(chats, on_tokens=on_tokens)
            long = ["third" in chat[-1]["content"] for chat in chats]
            return [PRMInputError("too long") if over else v for over, v in zip(long, verdicts, strict=True)]

    with pytest.raises(PRMInputError, match="too long") as caught:
        score(Short(), ["first"], ["first", "second", "third"], ["second"])
    assert caught.value.faults == {1: "too long"}
    assert caught.value.scored == {0: StepScores((0.5,)), 2: StepScores((0.5,))}
