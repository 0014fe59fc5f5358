import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Message, Progress, Prompt, Sampling, Task, text_of
from strategies.universal_self_consistency import asking, medoid, verdict
from tts_server.engines.fake import FakeEngine, FakeRequest

TEXTS = ("Blue skies, mostly.", "Red, I would say.", "The sky is blue, mostly.", "Mostly blue skies.")
"""Answers that no vote can count."""


class Asked(FakeEngine):
    """Gives sample i the text i, and asks `judge` which of the responses that it is shown is the best."""

    def __init__(self, judge: Callable[[list[str]], str], *texts: str) -> None:
        super().__init__(self._say)
        self.texts = texts
        self.judge = judge
        self.shown: list[list[str]] = []
        self.requests: list[FakeRequest] = []

    def _say(self, request: FakeRequest) -> str:
        if "I have generated the following responses" not in request.text:
            return self.texts[request.index]
        self.requests.append(request)
        self.shown.append(re.findall(r"^Response \d+: (.*)$", request.text, re.MULTILINE))
        return self.judge(self.shown[-1])


def naming(text: str) -> Callable[[list[str]], str]:
    return lambda shown: f"The most consistent response is Response {shown.index(text)}"


def run(
    judge: Callable[[list[str]], str],
    *texts: str,
    task: Task = TASK,
    budget: Budget | None = None,
    **options: Any,
) -> tuple[Search, Asked]:
    engine, entry = Asked(judge, *(texts or TEXTS)), strategies.get("universal_self_consistency")
    done = asyncio.run(search(entry, engine, task=task, budget=budget, n=len(engine.texts), **options))
    assert done.account.usage.completion_tokens == engine.generated
    return done, engine


def lines(done: Search) -> list[str]:
    return [event.text for event in done.events if isinstance(event, Progress)]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("seed", [1, 2, None])
def test_the_verdict_is_returned_wherever_the_response_stood(text: str, seed: int | None) -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
    done, engine = run(naming(text), task=task)
    assert done.final.best.text == text
    assert done.final.selector is None
    assert done.final.confidence is None
    assert [c.text for c in done.final.candidates] == list(TEXTS)
    assert sorted(engine.shown[0]) == sorted(TEXTS)
    assert f"the verdict is sample {TEXTS.index(text) + 1}" in lines(done)


def test_the_order_is_shuffled_by_the_seed() -> None:
    def order(seed: int) -> tuple[str, ...]:
        task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
        return tuple(run(naming(TEXTS[0]), task=task)[1].shown[0])

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(12)}) > 4
    assert len({order(seed)[0] for seed in range(24)}) == len(TEXTS)


def test_without_a_seed_each_request_has_its_own_order() -> None:
    task = replace(TASK, sampling=Sampling())
    assert len({tuple(run(naming(TEXTS[0]), task=task)[1].shown[0]) for _ in range(12)}) > 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The most consistent response is Response 2", 2),
        ("the most consistent response is **Response 0**, as 1 and 2 differ from Response 1.", 0),
        ('"The most consistent response is Response #1."', 1),
        ("Response 0 and Response 1 agree.\n\nThe most consistent response is: Response 1.", 1),
        ("I choose response 2.", 2),
        ("Response 1. Yes, Response 1.", 1),
        ("<think>The most consistent response is Response 0? No.</think>The most consistent response is Response 2", 2),
        ("The most consistent response is Response 3", None),
        ("The most consistent response is Response 99999999", None),
        ("Response 0 or Response 1.", None),
        ("2", None),
        ("", None),
    ],
)
def test_a_verdict_is_what_is_named_clearly(text: str, place: int | None) -> None:
    assert verdict(text, 3) == place


def unclear(shown: list[str]) -> str:
    return "They are all fine."


def test_without_a_verdict_the_majority_decides() -> None:
    texts = (r"\boxed{1}", "so " * 9 + r"\boxed{2}", r"then \boxed{2}", r"\boxed{3}")
    done, _ = run(unclear, *texts)
    assert (done.final.best.answer, done.final.selector) == ("2", "majority")
    assert done.final.confidence == 0.5
    assert "no verdict: They are all fine." in lines(done)


@pytest.mark.parametrize("fallback", ["majority", "medoid"])
def test_without_a_verdict_and_a_majority_the_medoid_is_returned(fallback: str) -> None:
    done, _ = run(unclear, fallback=fallback)
    assert done.final.best.text == "Blue skies, mostly."
    assert done.final.selector is None


def test_the_medoid_can_be_preferred() -> None:
    texts = (r"a b c d \boxed{1}", r"a b c e \boxed{2}", r"x \boxed{3}", r"y \boxed{3}")
    assert run(unclear, *texts, fallback="medoid")[0].final.best.answer == "1"
    assert run(unclear, *texts)[0].final.best.answer == "3"


def test_a_medoid_has_the_most_in_common() -> None:
    assert medoid(["a", "b", "c"]) == 0
    assert medoid(["x y z", "a b c", "a b d", "A, b!"]) == 3
    assert medoid(["", "..."]) == 0


def lost(shown: list[str]) -> str:
    raise ConnectionError("the judge is gone, said Response 1")


def test_a_verdict_that_fails_does_not_fail_the_search() -> None:
    done, _ = run(lost, r"\boxed{1}", r"\boxed{2}", r"\boxed{2}")
    assert done.final.best.answer == "2"
    assert any("the judge is gone" in line for line in lines(done))


def test_without_a_budget_there_is_no_verdict() -> None:
    done, engine = run(lost, r"\boxed{1}", r"\boxed{2}", r"\boxed{2}", budget=Budget(max_samples=3))
    assert (done.final.best.answer, engine.shown) == ("2", [])
    assert done.account.stop_reason == "max_samples"
    assert "no verdict: no budget is left" in lines(done)


def test_a_verdict_is_paid() -> None:
    done, engine = run(naming(TEXTS[1]))
    assert done.account.usage.samples == 5
    drawn = sum(c.sample.completion_tokens for c in done.final.candidates)
    assert done.account.usage.completion_tokens == engine.generated > drawn


def test_one_response_needs_no_verdict() -> None:
    done, engine = run(lost, "Blue.", "")
    assert (done.final.best.text, engine.shown) == ("Blue.", [])


def test_what_is_unfinished_is_not_offered() -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, max_tokens=9))
    done, engine = run(naming("Red."), "so " * 30, "Blue.", "Red.", task=task)
    assert sorted(engine.shown[0]) == ["Blue.", "Red."]
    assert done.final.best.text == "Red."


def test_thoughts_are_not_shown() -> None:
    done, engine = run(naming("Red."), "<think>Is it?</think>\n\nBlue.", "<think>Well</think>Red.")
    assert sorted(engine.shown[0]) == ["Blue.", "Red."]
    assert done.final.best.text == "<think>Well</think>Red."


def test_the_verdict_has_its_own_sampling() -> None:
    sampling = Sampling(seed=3, max_tokens=50, temperature=1.5, stop=("sky",), logprobs=2)
    _, engine = run(naming(TEXTS[1]), task=replace(TASK, sampling=sampling), verdict_tokens=77, verdict_temperature=0.2)
    asked = engine.requests[0].sampling
    assert asked == Sampling(max_tokens=77, temperature=0.2, seed=asked.seed)
    assert asked.seed not in (None, 3)


def test_the_question_is_asked_after_the_turns_before_it() -> None:
    turns: list[Message] = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Bonjour"},
        {"role": "user", "content": "Which colour?"},
        {"role": "assistant", "content": "La"},
    ]
    template = {"continue_final_message": True, "add_generation_prompt": False, "enable_thinking": False}
    prompt = asking(Task(Prompt(tuple(turns), template=template)), ["bleu", "rouge"])
    assert prompt.messages[:-1] == tuple(turns[1:3])
    text = text_of(prompt.messages[-1])
    assert text.startswith("I have generated the following responses to the question: Which colour?")
    assert "Response 0: bleu\n\nResponse 1: rouge\n\n" in text
    assert text.endswith('Start your answer with "The most consistent response is Response X" (without quotes).')
    assert prompt.template == {
        "continue_final_message": False,
        "add_generation_prompt": True,
        "enable_thinking": False,
    }


def test_choices_are_the_verdict_and_then_other_answers() -> None:
    texts = (r"\boxed{1}", r"\boxed{2}", r"so \boxed{2}", r"\boxed{3}")
    done, _ = run(naming(r"so \boxed{2}"), *texts, task=replace(TASK, choices=3))
    assert [done.final.candidates[i].text for i in done.final.ranking] == [texts[2], texts[0], texts[3], texts[1]]
    assert [(v.answer, v.count) for v in done.final.votes] == [("2", 2), ("1", 1), ("3", 1)]
