import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from prm import FakePRM
from strategies.core.account import Budget
from strategies.core.contracts import Progress, Refused, Sampling, Task
from strategies.search.revision_chains import ALL_RIGHT, FEEDBACK, REFINE
from tts_server.engines.fake import FakeEngine, FakeRequest

WORTH = FakePRM(lambda question, steps: [int(steps[-1].partition("{")[2].partition("}")[0]) / 10 for _ in steps])
"""Likes high answers."""


class Policy:
    """Answers with `attempts` one after the other, reviews them, and keeps what it was asked."""

    def __init__(self, *attempts: int, review: Callable[[int], str] = lambda revision: "Step 1 is wrong.") -> None:
        self.attempts = [rf"\boxed{{{answer}}}" for answer in attempts]
        self.review = review
        self.asked: list[FakeRequest] = []

    def __call__(self, request: FakeRequest) -> str:
        self.asked.append(request)
        if request.messages[-1]["content"] == FEEDBACK:
            return self.review(len(self.reviews))
        return self.attempts.pop(0)

    @property
    def reviews(self) -> list[FakeRequest]:
        return [request for request in self.asked if request.messages[-1]["content"] == FEEDBACK]


def run(script: Any, prm: FakePRM | None = None, *, task: Task = TASK, **options: Any) -> Search:
    budget: Budget | None = options.pop("budget", None)
    return asyncio.run(
        search(strategies.get("self_refine"), FakeEngine(script), prm, task=task, budget=budget, **options)
    )


def test_a_revision_is_a_review_and_a_new_solution() -> None:
    policy = Policy(1, 2)
    done = run(policy, revisions=1)
    first, review, revision = policy.asked
    question = TASK.prompt.messages
    assert first.messages == question
    assert [m["content"] for m in review.messages[1:]] == [r"\boxed{1}", FEEDBACK]
    assert [m["content"] for m in revision.messages[1:]] == [r"\boxed{1}", FEEDBACK, "Step 1 is wrong.", REFINE]
    assert done.final.best.answer == "2"
    assert [c.answer for c in done.final.candidates] == ["1", "2"]
    assert done.account.usage.samples == 3
    assert Progress("revision 1: 1 of 1 chains keep theirs") in done.events


def test_nothing_is_revised_once_a_review_finds_no_error() -> None:
    policy = Policy(1, 2, review=lambda revision: ["Wrong.", f"Fine. {ALL_RIGHT}"][revision - 1])
    done = run(policy, revisions=9)
    assert (done.final.best.answer, len(policy.asked)) == ("2", 4)


def test_what_a_review_only_thought_is_not_its_verdict() -> None:
    policy = Policy(1, 2, review=lambda revision: f"<think>{ALL_RIGHT}?</think>Step 1 is wrong.")
    assert run(policy, revisions=1).final.best.answer == "2"


def test_a_revision_is_kept_only_if_its_score_rises() -> None:
    policy = Policy(5, 3, 5, 7)
    done = run(policy, WORTH, revisions=3)
    assert [c.score for c in done.final.candidates] == [0.5, 0.3, 0.5, 0.7]
    kept = [event.text[-30:] for event in done.events if isinstance(event, Progress) and "revision" in event.text]
    assert [line.partition(": ")[2][0] for line in kept] == ["0", "0", "1"]
    assert [review.messages[1]["content"] for review in policy.reviews] == [r"\boxed{5}"] * 3


def test_with_scores_a_chains_attempts_vote_by_their_weight() -> None:
    # 4 + 4 are heavier than 6, though 6 is the best of them (2408.03314).
    done = run(Policy(4, 6, 4), WORTH, revisions=2)
    assert done.final.best.answer == "4"
    assert done.final.selector == "weighted"


def test_all_drafts_of_a_revision_are_scored_in_one_call() -> None:
    done = run(Policy(1, 2, 3, 4, 5, 6), WORTH, n=2, revisions=2)
    assert done.account.usage.prm_calls == 3
    assert len(done.final.candidates) == 6


@pytest.mark.parametrize(("accept", "answer"), [(None, "3"), ("last", "3"), ("majority", "1")])
def test_without_scores_the_last_or_the_most_frequent_attempt_counts(accept: str | None, answer: str) -> None:
    done = run(Policy(1, 1, 3), revisions=2, accept=accept)
    assert (done.final.best.answer, done.final.selector) == (answer, "majority")


def test_a_reward_model_is_not_asked_unless_it_decides() -> None:
    done = run(Policy(1, 2), WORTH, revisions=1, accept="last")
    assert done.account.usage.prm_calls == 0


def test_each_chain_has_one_vote() -> None:
    # Six attempts say 1, but they are of two chains out of five.
    firsts = [1, 1, 2, 2, 2]
    policy = Policy(*firsts, 1, 1)

    def script(request: FakeRequest) -> str:
        if request.messages[-1]["content"] == FEEDBACK:
            wrong = request.messages[1]["content"] == r"\boxed{1}"
            return "Wrong." if wrong else ALL_RIGHT
        return policy(request) if request.messages[-1]["content"] != REFINE else r"\boxed{1}"

    done = run(script, n=5, revisions=2, accept="majority")
    assert [c.answer for c in done.final.candidates].count("1") == 6
    assert done.final.best.answer == "2"
    assert done.final.confidence == pytest.approx(3 / 5)
    assert [c.weight for c in done.final.candidates].count(1.0) == 5


def test_choices_are_distinct_answers_first() -> None:
    done = run(Policy(1, 1, 2, 2), n=2, revisions=1, task=replace(TASK, choices=2))
    assert [done.final.candidates[i].answer for i in done.final.ranking[:2]] == ["2", "1"]


def test_a_revision_sees_the_last_four_attempts() -> None:
    policy = Policy(*range(1, 8))
    run(policy, revisions=6)
    shown = [m["content"] for m in policy.asked[-1].messages if "boxed" in m["content"] and m["role"] == "assistant"]
    assert shown == [rf"\boxed{{{i}}}" for i in (3, 4, 5, 6)]


def test_the_thought_of_an_attempt_is_not_shown_again() -> None:
    policy = Policy(1, 2)
    policy.attempts[0] = "<think>" + "hm " * 50 + "</think>\n\n" + policy.attempts[0]
    run(policy, revisions=1)
    assert policy.asked[1].messages[1]["content"] == r"\boxed{1}"


def test_a_failed_review_ends_only_its_chain() -> None:
    def script(request: FakeRequest) -> str:
        if request.messages[-1]["content"] == FEEDBACK and "{1}" in request.messages[1]["content"]:
            raise ConnectionError("lost")
        return rf"\boxed{{{request.index + 1}}}" if len(request.messages) == 1 else r"\boxed{9}"

    done = run(script, n=2, revisions=1)
    assert [c.answer for c in done.final.candidates] == ["1", "2", "9"]


def test_a_revision_that_fails_or_is_cut_is_recorded_and_not_chosen() -> None:
    def script(request: FakeRequest) -> str:
        if request.messages[-1]["content"] == REFINE:
            raise ConnectionError("lost")
        return r"\boxed{1}"

    final = run(script).final
    assert [c.sample.finish_reason for c in final.candidates] == ["eos", "error"]
    assert final.best.answer == "1"
    cut = run(Policy(1, 2), task=replace(TASK, sampling=Sampling(max_tokens=3)), revisions=0).final
    assert cut.best.sample.finish_reason in ("length", "eos")


@pytest.mark.parametrize("budget", [Budget(max_samples=2), Budget(max_samples=1), Budget(max_prm_tokens=0)])
def test_a_spent_budget_leaves_the_best_so_far(budget: Budget) -> None:
    done = run(Policy(1, 2, 3), WORTH, revisions=9, budget=budget)
    assert done.final.best.answer == "1"
    assert done.account.stop_reason in ("max_samples", "max_prm_tokens")


def test_reviews_have_their_own_length_and_no_stop() -> None:
    task = replace(TASK, sampling=Sampling(max_tokens=500, stop=("END",), seed=1))
    policy = Policy(1, 2)
    run(policy, task=task, revisions=1, feedback_tokens=77)
    assert [(r.sampling.max_tokens, r.sampling.stop) for r in policy.asked] == [
        (500, ("END",)),
        (77, ()),
        (500, ("END",)),
    ]
    assert len({r.sampling.seed for r in policy.asked}) == 3


def test_to_accept_by_score_needs_a_reward_model() -> None:
    with pytest.raises(Refused) as caught:
        run(Policy(1), accept="score")
    assert caught.value.param == "tts.accept"
