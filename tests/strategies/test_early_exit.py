import asyncio
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Sampling, Task
from strategies.early_exit import PROBE
from tts_server.engines.fake import FakeEngine, FakeRequest


class Policy:
    """Thinks ` a a a …` and gives a probe the next of `answers`; keeps what it was asked."""

    def __init__(self, *answers: str, thought: str = " a" * 100, opening: str = "") -> None:
        self.answers = list(answers)
        self.thought = opening + thought
        self.probes: list[FakeRequest] = []
        self.parts: list[FakeRequest] = []

    def __call__(self, request: FakeRequest) -> str:
        said = request.text.rpartition("<assistant>")[2]
        if said.endswith(r"\boxed{"):
            self.probes.append(request)
            return self.answers.pop(0)
        self.parts.append(request)
        return self.thought[len(said) :]


def run(script: Any, *, task: Task = TASK, budget: Budget | None = None, **options: Any) -> Search:
    return asyncio.run(search(strategies.get("early_exit"), FakeEngine(script), task=task, budget=budget, **options))


def test_it_ends_with_the_answer_that_probes_agree_on() -> None:
    policy = Policy("5}.", "5} ", "5}")
    done = run(policy, every=10)
    best = done.final.best
    assert best.text == " a" * 30 + "\n\n**Final Answer**\n\n\\[ \\boxed{5} \\]"
    assert (best.answer, best.sample.finish_reason) == ("5", "stop")
    assert (len(policy.parts), len(policy.probes)) == (3, 3)


def test_probes_are_counted_and_not_returned() -> None:
    done = run(Policy("5}", "5}", "5}"), every=10)
    # Each probe is a token of text and the end of sequence.
    assert done.account.usage.completion_tokens == 30 + 3 * 2
    assert done.final.best.sample.completion_tokens == 30
    assert done.account.usage.samples == 1


def test_a_probe_goes_on_from_a_copy_of_the_thought() -> None:
    policy = Policy("5}", "5}", "5}")
    run(policy, every=10, probe_tokens=7)
    said = [request.text.rpartition("<assistant>")[2] for request in policy.probes]
    assert said == [" a" * tokens + PROBE for tokens in (10, 20, 30)]
    assert [request.text.rpartition("<assistant>")[2] for request in policy.parts] == [" a" * t for t in (0, 10, 20)]
    assert {request.sampling.max_tokens for request in policy.probes} == {7}


@pytest.mark.parametrize(
    ("answers", "probes"),
    [
        (["5}", "6}", "5}", "5}", "5}"], 5),
        (["5}", "0.5}", r"\frac12}", "1/2}"], 4),
        (["5}", "5} but", "5}", "5}", "5}"], 5),
        (["5}", "5} Hmm", "5}", "5}", "5}"], 5),
        (["none", "}", "5}", "5}", "5}"], 5),
        (["none}", "none}", "none}"], 3),
    ],
)
def test_only_the_last_probes_in_a_row_without_hesitation_count(answers: list[str], probes: int) -> None:
    policy = Policy(*answers)
    run(policy, every=10)
    assert len(policy.probes) == probes


@pytest.mark.parametrize("agree", [1, 2, 5])
def test_as_many_must_agree_as_asked(agree: int) -> None:
    policy = Policy(*["5}"] * agree)
    assert run(policy, every=10, agree=agree).final.best.sample.completion_tokens == 10 * agree


def test_without_agreement_the_model_ends_it() -> None:
    policy = Policy(*(f"{i}}}" for i in range(20)), thought=" a" * 24 + r" \boxed{7}")
    best = run(policy, every=10).final.best
    assert (best.text, best.answer, best.sample.finish_reason) == (policy.thought, "7", "eos")
    assert len(policy.probes) == 2


def test_an_open_thought_is_closed_before_the_answer() -> None:
    best = run(Policy("5}", opening="<think>"), every=10, agree=1).final.best
    assert "</think>\n\n**Final Answer**" in best.text
    assert best.answer == "5"


def test_what_follows_the_thought_is_not_probed() -> None:
    policy = Policy("1}", thought="<think>" + " a" * 15 + "</think>" + " b" * 50 + r" \boxed{7}")
    best = run(policy, every=10, agree=2).final.best
    assert (best.text, len(policy.probes)) == (policy.thought, 1)


def test_max_tokens_are_those_of_the_thought_and_its_answer() -> None:
    task = replace(TASK, sampling=Sampling(max_tokens=25, seed=1))
    policy = Policy("1}", "2}", "3}")
    best = run(policy, task=task, every=10).final.best
    assert (best.sample.completion_tokens, best.sample.finish_reason) == (25, "length")
    assert [part.sampling.max_tokens for part in policy.parts] == [10, 10, 5]


def test_the_clients_stop_ends_it() -> None:
    task = replace(TASK, sampling=Sampling(stop=("STOP",), seed=1))
    best = run(Policy("1}", thought=" a" * 15 + " STOP" + " a" * 50), task=task, every=10).final.best
    assert (best.text, best.sample.finish_reason) == (" a" * 15 + " ", "stop")


def test_a_failed_probe_is_no_answer_and_no_failure() -> None:
    policy = Policy("5}", "5}", "5}")

    def script(request: FakeRequest) -> str:
        if request.text.endswith(" a" * 10 + PROBE) and len(policy.parts) == 1:
            raise ConnectionError("lost")
        return policy(request)

    assert run(script, every=10).final.best.sample.completion_tokens == 40


def test_a_spent_budget_returns_the_thought() -> None:
    done = run(Policy("5}", "5}", "5}"), every=10, budget=Budget(max_tokens=22))
    best = done.final.best
    assert (best.text, best.sample.finish_reason) == (" a" * 20, "budget")
    assert done.account.stop_reason == "max_tokens"


def test_chains_vote() -> None:
    def script(request: FakeRequest) -> str:
        said = request.text.rpartition("<assistant>")[2]
        if said.endswith(r"\boxed{"):
            return "1}" if " z" in said else "2}"
        return (" z" if " z" in said or (not said and request.index == 0) else " a") * 50

    done = run(script, n=3, every=10)
    assert [c.answer for c in done.final.candidates] == ["1", "2", "2"]
    assert done.final.best.answer == "2"


@pytest.mark.parametrize("every", [1, 2, 3, 5, 7])
def test_a_stop_string_across_two_probes_places_ends_it(every: int) -> None:
    policy = Policy(*["?"] * 100, thought=" alpha beta gammaSTOPHERE delta" + " a" * 50)
    done = run(policy, every=every, task=replace(TASK, sampling=Sampling(seed=7, stop=("xy", "STOPHERE"))))
    best = done.final.best
    assert (best.text, best.sample.finish_reason) == (" alpha beta gamma", "stop")
    # What was generated past it, to the next probe's place at most, still counts.
    assert best.sample.completion_tokens <= 4 + every
