import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pydantic import ValidationError
from searching import TASK, Search, search

import strategies
from prm import FakePRM, ProcessRewardModel
from strategies.core.account import Budget
from strategies.core.contracts import Candidate, Progress, Prompt, Refused, Sampling, Task
from tts_server.engines.fake import FakeEngine, FakeRequest

ENTRY = strategies.get("graph_of_thoughts")


@dataclass
class Mind:
    """A policy whose first solutions are given; it merges answers to a sum and refines by adding 100."""

    first: Sequence[int]
    verdicts: Mapping[int, str] = field(default_factory=dict)
    asked: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    lost: tuple[str, ...] = ()

    def __call__(self, request: FakeRequest) -> str:
        said = str(request.messages[-1]["content"])
        seen = tuple(map(int, re.findall(r"boxed\{(-?\d+)\}", said)))
        kind = next((name for word, name in WORDS.items() if word in said), "generate")
        if request.index == 0:
            self.asked.append((kind, seen))
        if kind in self.lost:
            raise ConnectionError(f"{kind} is lost")
        if kind == "score":
            return self.verdicts.get(seen[0], "impossible")
        made = {"merge": sum(seen), "refine": sum(seen) + 100, "further": sum(seen) + 10 + request.index}
        return rf"It is \boxed{{{made.get(kind, self.first[request.index % len(self.first)])}}}."

    def asked_for(self, kind: str) -> list[tuple[int, ...]]:
        return [seen for name, seen in self.asked if name == kind]


WORDS = {"sure, likely": "score", "Merge these": "merge", "improved": "refine", "another solution": "further"}


def run(mind: Mind, prm: ProcessRewardModel | None = None, *, task: Task = TASK, **options: Any) -> Search:
    budget: Budget | None = options.pop("budget", None)
    return asyncio.run(search(ENTRY, FakeEngine(mind), prm, task=task, budget=budget, **options))


def lines(done: Search) -> list[str]:
    return [event.text for event in done.events if isinstance(event, Progress)]


def answers(candidates: Sequence[Candidate]) -> list[str | None]:
    return [candidate.answer for candidate in candidates]


def ranked(done: Search) -> list[str | None]:
    return answers([done.final.candidates[i] for i in done.final.ranking])


def test_the_default_graph_writes_chooses_merges_and_refines() -> None:
    mind = Mind([1, 2, 3, 4], {1: "likely", 2: "impossible", 3: "likely", 4: "likely", 108: "sure"})
    done = run(mind)
    assert mind.asked == [
        ("generate", ()),
        *(("score", (i,)) for i in (1, 2, 3, 4)),
        ("merge", (1, 3, 4)),
        ("refine", (8,)),
        ("score", (108,)),
    ]
    assert lines(done) == [
        "operation 1: generate gives 4 thoughts",
        "operation 2: score gives 4 thoughts",
        "operation best: keep_best gives 3 thoughts",
        "operation 4: aggregate gives 1 thought",
        "operation 5: refine gives 1 thought",
        "operation scored: score gives 1 thought",
        "operation 7: keep_best gives 1 thought",
    ]
    assert done.final.best.answer == "108"
    assert done.account.usage.samples == 4 + 4 * 3 + 1 + 1 + 3


@pytest.mark.parametrize("verdict", ["likely", "sure"])
def test_what_was_merged_and_is_worth_as_much_does_not_beat_what_it_was_made_of(verdict: str) -> None:
    equal = dict.fromkeys([1, 2, 3, 4, 106], verdict)
    assert run(Mind([1, 2, 3, 4], equal)).final.best.answer == "1"


def test_what_was_merged_must_beat_what_it_was_made_of() -> None:
    done = run(Mind([1, 2, 3, 4], {1: "likely", 3: "sure", 4: "likely", 108: "likely"}))
    assert done.final.best.answer == "3"


def test_a_text_is_valued_once() -> None:
    mind = Mind([5, 5, 5, 6], {5: "likely", 6: "sure"})
    run(mind)
    assert mind.asked_for("score")[:2] == [(5,), (6,)]
    assert len(mind.asked_for("score")) == 3


def test_the_reward_model_scores_where_one_is_loaded() -> None:
    def score(question: str, steps: Sequence[str]) -> list[float]:
        return [int(re.findall(r"\d+", steps[-1])[-1]) / 1000]

    mind = Mind([1, 2, 3, 4])
    done = run(mind, FakePRM(score))
    assert mind.asked_for("score") == []
    assert mind.asked_for("merge") == [(4, 3, 2)]
    assert (done.final.best.answer, done.final.best.score) == ("109", 0.109)
    assert done.account.usage.prm_calls == 2


def test_generate_goes_on_from_each_thought() -> None:
    mind = Mind([1, 2])
    graph = [{"op": "generate", "k": 2}, {"op": "generate", "k": 2}]
    done = run(mind, graph=graph)
    assert mind.asked_for("further") == [(1,), (2,)]
    assert answers(done.final.candidates) == ["11", "12", "12", "13", "1", "2"]
    assert done.final.best.answer == "12"
    assert ranked(done)[-2:] == ["1", "2"]
    assert lines(done)[-1] == "operation 2: generate gives 4 thoughts"


def test_an_operation_can_be_told_what_to_do() -> None:
    seen: list[str] = []

    def script(request: FakeRequest) -> str:
        seen.append(str(request.messages[-1]["content"]))
        return r"\boxed{1}"

    graph = [
        {"op": "generate", "k": 1, "instruction": "Solve the first half."},
        {"op": "aggregate", "instruction": "Join."},
    ]
    asyncio.run(search(ENTRY, FakeEngine(script, continues=False), graph=graph))
    assert seen[0] == "Is it 1 or 0?\n\nSolve the first half."
    assert seen[1] == "Is it 1 or 0?\n\nA solution:\n\\boxed{1}\n\nJoin."


def test_independent_operations_run_at_once() -> None:
    graph = [
        {"op": "generate", "k": 1, "name": "left"},
        {"op": "generate", "k": 1, "name": "right", "after": []},
        {"op": "aggregate", "after": ["left", "right"]},
    ]
    engine = CountingEngine(Mind([7]))
    done = asyncio.run(search(ENTRY, engine, graph=graph))
    assert engine.peak == 2
    assert done.final.best.answer == "14"


class CountingEngine(FakeEngine):
    """Remembers how many samples grew at once."""

    peak = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> Any:
        async for chunk in super().generate(prompt, sampling, n):
            self.peak = max(self.peak, self.live)
            yield chunk


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ([], "at least 1 item"),
        ([{"op": "prune"}], "does not match any of the expected tags"),
        ([{"op": "generate", "k": 0}], "greater than or equal to 1"),
        ([{"op": "generate", "n": 3}], "Extra inputs are not permitted"),
        ([{"op": "score"}], r"operation '1' \(score\) takes no thoughts; only generate can begin a graph"),
        ([{"op": "generate"}, {"op": "refine", "after": []}], r"operation '2' \(refine\) takes no thoughts"),
        ([{"op": "generate"}, {"op": "keep_best"}], r"'2' \(keep_best\) takes thoughts of '1' without a score"),
        ([{"op": "generate", "name": "a"}, {"op": "score", "name": "a"}], "two operations are named 'a'"),
        (
            [{"op": "generate"}, {"op": "score", "after": ["3"]}, {"op": "refine", "after": ["2"]}],
            r"operation '2' comes after '3', which is not listed before it \('1'\)",
        ),
        ([{"op": "generate", "k": 100}] * 3, "a graph writes at most 4096 thoughts, this one 1010100"),
        ([{"op": "generate", "after": ["x"]}], r"'1' comes after 'x', which is not listed before it \(none\)"),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(graph: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ENTRY.options.model_validate({"graph": graph})


def test_a_lost_operation_does_not_lose_the_search() -> None:
    mind = Mind([1, 2, 3, 4], {1: "likely", 3: "sure"}, lost=("merge",))
    done = run(mind)
    assert lines(done)[3] == "operation 4: aggregate gives 0 thoughts"
    assert mind.asked_for("refine") == []
    assert done.final.best.answer == "3"


def test_a_lost_end_leaves_the_best_before_it() -> None:
    graph = [{"op": "generate"}, {"op": "score"}, {"op": "keep_best"}, {"op": "refine"}]
    done = run(Mind([1, 2, 3, 4], {1: "likely", 3: "sure"}, lost=("refine",)), graph=graph)
    assert done.final.best.answer == "3"


def test_thoughts_without_a_value_vote_as_one_each() -> None:
    done = run(Mind([1, 2, 2, 3]), graph=[{"op": "generate"}])
    assert (done.final.best.answer, done.final.selector, done.final.confidence) == ("2", "majority", 0.5)


def test_a_spent_budget_returns_the_best_so_far() -> None:
    mind = Mind([1, 2, 3, 4], {1: "likely", 3: "sure"})
    done = run(mind, budget=Budget(max_samples=4 + 12))
    assert done.account.stop_reason == "max_samples"
    assert done.final.best.answer == "3"
    assert mind.asked_for("merge") == []


def test_choices_come_from_all_that_was_written() -> None:
    mind = Mind([1, 2, 3, 4], {1: "likely", 3: "likely", 106: "sure"})
    done = run(mind, task=replace(TASK, choices=3))
    assert ranked(done)[0] == "106"
    assert len(done.final.ranking) == 6
    assert len(set(ranked(done)[:3])) == 3


def test_more_choices_than_are_written_are_refused() -> None:
    graph = [{"op": "generate", "k": 2}, {"op": "generate", "k": 2}, {"op": "score"}, {"op": "keep_best", "n": 3}]
    graph += [{"op": "refine"}, {"op": "aggregate", "k": 2}]
    assert run(Mind([1]), graph=graph, task=replace(TASK, choices=11)).final.best.answer
    with pytest.raises(Refused) as caught:
        run(Mind([1]), graph=graph, task=replace(TASK, choices=12))
    assert caught.value.param == "n"


def test_constrained_output_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        run(Mind([1]), task=replace(TASK, sampling=Sampling(structured={"type": "json_object"})))
    assert caught.value.param == "response_format"


def test_a_value_is_remembered_between_operations() -> None:
    mind = Mind([1, 2], {1: "sure"})
    run(mind, graph=[{"op": "generate", "k": 2}, {"op": "score"}, {"op": "score"}, {"op": "keep_best"}])
    assert mind.asked_for("score") == [(1,), (2,)]


def test_an_answer_of_nothing_was_not_cut() -> None:
    silent = asyncio.run(search(ENTRY, FakeEngine(lambda _: ""), FakePRM()))
    assert (silent.final.best.text, silent.final.best.sample.finish_reason) == ("", "eos")
    assert silent.final.best.sample.completion_tokens == 1


def test_blanks_up_to_the_token_limit_were_cut() -> None:
    task = Task(TASK.prompt, Sampling(seed=7, max_tokens=2))
    silent = asyncio.run(search(ENTRY, FakeEngine(lambda _: " \n \n \n"), FakePRM(), task=task))
    assert silent.final.best.sample.finish_reason == "length"
