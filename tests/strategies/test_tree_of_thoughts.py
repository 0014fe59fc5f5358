import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from prm import FakePRM, ProcessRewardModel
from strategies.core.account import Budget
from strategies.core.contracts import Progress, Prompt, Refused, Sampling, Task
from tts_server.engines.fake import FakeEngine, FakeRequest


@dataclass
class Mind:
    """A policy that knows what follows each state and what it thinks of each; it notes what it was asked."""

    follow: Mapping[str, Sequence[str]]
    verdicts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    votes: Sequence[str] = ()
    rests: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, request: FakeRequest) -> str:
        said = str(request.messages[-1]["content"])
        state = said.partition("so far:\n")[2].rpartition("\n\n")[0]
        if "sure, likely" in said:
            state = said.partition("Solution:\n")[2]
            self.note("value", state, request)
            return self.verdicts.get(state, ["impossible"] * 9)[request.index]
        if "best choice" in said:
            self.note("vote", said.partition("Choice 1:")[2], request)
            return self.votes[request.index]
        if "Write the rest of" in said or "Write the solution" in said:
            self.note("rest", state, request)
            return self.rests.get(state, rf"So it is \boxed{{{state[-1:]}}}.")
        self.note("propose" if "Propose" in said else "sample", state, request)
        listed = self.follow.get(state, [])
        return "\n".join(listed) if "Propose" in said else listed[request.index % len(listed)]

    def note(self, kind: str, state: str, request: FakeRequest) -> None:
        if request.index == 0:
            self.asked.append((kind, state))

    def states(self, kind: str) -> list[str]:
        return [state for asked, state in self.asked if asked == kind]


def run(mind: Mind, prm: ProcessRewardModel | None = None, *, task: Task = TASK, **options: Any) -> Search:
    budget: Budget | None = options.pop("budget", None)
    entry = strategies.get("tree_of_thoughts")
    return asyncio.run(search(entry, FakeEngine(mind), prm, task=task, budget=budget, **options))


def lines(done: Search) -> list[str]:
    return [event.text for event in done.events if isinstance(event, Progress)]


WORDS = {"A": ["likely"] * 3, "B": ["sure"] * 3, "C": ["impossible"] * 3, "B\n\nx": ["sure"] * 3}


def test_bfs_keeps_the_best_states() -> None:
    mind = Mind({"": ["A", "B", "C"], "A": ["w"], "B": ["x", "y"]}, WORDS)
    done = run(mind, n_generate=3, breadth=2, max_steps=2)
    assert mind.states("sample") == ["", "B", "A"]
    assert mind.states("value") == ["A", "B", "C", "B\n\nx", "B\n\ny", "A\n\nw"]
    # y and w are equal, and x is already there of what follows B.
    assert mind.states("rest") == ["B\n\nx", "A\n\nw"]
    assert lines(done) == [
        "step 1: 2 of 3 states are kept, 0 have ended",
        "step 2: 2 of 3 states are kept, 0 have ended",
        "2 solutions have ended",
    ]
    assert done.final.best.text == "B\n\nx\n\nSo it is \\boxed{x}."
    assert [c.weight for c in done.final.candidates] == [20.0, 0.001]
    assert done.final.confidence == pytest.approx(20 / 20.001)


def test_the_calls_are_what_the_paper_counts() -> None:
    """A step costs one call a state, and n_evaluate samples of each new state's value; one more call a solution."""
    mind = Mind({"": ["A", "B", "C"], "A": ["w"], "B": ["x", "y"]}, WORDS)
    done = run(mind, n_generate=3, n_evaluate=2, breadth=2, max_steps=2)
    assert len(mind.asked) == 3 + 6 + 2
    assert done.account.usage.samples == 3 * 3 + 6 * 2 + 2


def test_equal_states_are_one_and_are_valued_once() -> None:
    mind = Mind({"": ["A", "A", " A "], "A": ["w"]}, WORDS)
    done = run(mind, n_generate=3, max_steps=1)
    assert mind.states("value") == ["A"]
    assert len(done.final.candidates) == 1


@pytest.mark.parametrize(
    ("said", "weight"),
    [
        (["sure", "likely", "impossible"], (20 + 1 + 0.001) / 3),
        (["It is impossible?\nNo:\n**Sure**.\n", "LIKELY", "I am not certain"], 21 / 3),
        (["sure\nthis is unlikely"] * 3, 0.0),
    ],
)
def test_a_value_is_the_mean_of_the_last_lines_verdicts(said: list[str], weight: float) -> None:
    mind = Mind({"": ["A", "B"]}, {"A": said, "B": ["likely"] * 3})
    done = run(mind, n_generate=2, max_steps=1)
    found = {c.text[0]: c.weight for c in done.final.candidates}
    assert found == {"A": pytest.approx(weight), "B": 1.0}


def test_a_policy_that_gives_no_verdicts_leaves_it_to_the_majority() -> None:
    mind = Mind({"": [r"1: \boxed{4}", r"2: \boxed{5}", r"3: \boxed{5}"]}, {})
    done = run(replace(mind, verdicts={t: ["well"] * 3 for t in mind.follow[""]}), n_generate=3)
    assert (done.final.best.answer, done.final.selector) == ("5", "majority")


def test_an_ended_state_is_not_continued_and_gives_its_place_up() -> None:
    mind = Mind({"": ["A", r"D \boxed{7}", "B"], "A": ["w"], "B": ["x"]}, {**WORDS, r"D \boxed{7}": ["sure"] * 3})
    done = run(mind, n_generate=3, breadth=2, max_steps=2)
    assert mind.states("sample") == ["", "B"]
    assert mind.states("rest") == ["B\n\nx"]
    assert lines(done)[0] == "step 1: 2 of 3 states are kept, 1 have ended"
    assert {c.text for c in done.final.candidates} == {r"D \boxed{7}", "B\n\nx\n\nSo it is \\boxed{x}."}


def test_votes_choose_among_the_states() -> None:
    votes = ["Both are good.\nThe best choice is 2", "the best choice is **Choice 2**.", "The best choice is 9"]
    mind = Mind({"": ["A", "B"]}, votes=votes)
    done = run(mind, n_generate=2, evaluator="vote", breadth=1, max_steps=1)
    assert mind.states("vote") == ["\nA\n\nChoice 2:\nB"]
    assert mind.states("rest") == ["B"]
    assert mind.states("value") == []
    assert done.final.best.weight == pytest.approx(2 / 3)


def test_a_single_state_is_not_voted_on() -> None:
    mind = Mind({"": ["A"]})
    run(mind, n_generate=1, evaluator="vote", max_steps=1)
    assert [kind for kind, _ in mind.asked] == ["sample", "rest"]


def test_a_reward_model_evaluates_where_one_is_loaded() -> None:
    prm = FakePRM(lambda question, steps: [{"A": 0.2, "B": 0.9}[step] for step in steps], tokens=1)
    mind = Mind({"": ["A", "B"]})
    done = run(mind, prm, n_generate=2, breadth=1, max_steps=1)
    assert [kind for kind, _ in mind.asked] == ["sample", "rest"]
    assert (done.final.best.score, done.final.best.step_scores) == (0.9, (0.9,))
    assert (done.account.usage.prm_calls, done.account.usage.prm_tokens) == (1, 2)


def test_the_policy_judges_where_it_is_asked_to() -> None:
    done = run(Mind({"": ["A", "B"]}, WORDS), FakePRM(), n_generate=2, max_steps=1, evaluator="value")
    assert done.account.usage.prm_calls == 0
    assert done.final.best.text.startswith("B")
    assert done.final.best.score is None


TREE = {"": ["A", "B", "C"], "A": ["w"], "B": ["x", "y"], "C": ["z"]}


def test_dfs_goes_to_the_most_promising_first_and_backtracks() -> None:
    words = {**WORDS, "B\n\nx": ["likely"] * 3, "B\n\ny": ["sure"] * 3, "A\n\nw": ["likely"] * 3}
    mind = Mind(TREE, words)
    done = run(mind, search="dfs", n_generate=3, max_steps=2)
    assert [a for a in mind.asked if a[0] != "value"] == [
        ("sample", ""),
        ("sample", "B"),
        ("rest", "B\n\ny"),
        ("rest", "B\n\nx"),
        ("sample", "A"),
        ("rest", "A\n\nw"),
    ]
    assert lines(done)[0] == "visit 1: depth 0, 2 of 3 states are worth a visit"
    assert [c.text.rpartition("\n\n")[0] for c in done.final.candidates] == ["B\n\ny", "B\n\nx", "A\n\nw"]
    assert done.final.best.text.startswith("B\n\ny")


def test_of_equal_states_dfs_visits_the_first_first() -> None:
    mind = Mind(TREE, {"A": ["likely"], "B": ["likely"], "C": ["likely"]})
    run(mind, search="dfs", n_generate=3, n_evaluate=1, max_steps=1)
    assert mind.states("rest") == ["A", "B", "C"]


def test_dfs_prunes_at_the_threshold() -> None:
    mind = Mind(TREE, {"A": ["likely"], "B": ["sure"]})
    run(mind, search="dfs", n_generate=3, n_evaluate=1, max_steps=1, threshold=1.0)
    assert mind.states("rest") == ["B"]


def test_where_all_is_pruned_the_best_of_it_is_completed() -> None:
    mind = Mind(TREE, {"A": ["what?"], "B": ["impossible"], "C": ["what?"]})
    done = run(mind, search="dfs", n_generate=3, n_evaluate=1)
    assert mind.states("rest") == ["B"]
    assert done.final.best.answer == "B"


def test_visits_are_bounded() -> None:
    mind = Mind(TREE, WORDS)
    done = run(mind, search="dfs", n_generate=3, max_visits=2, max_steps=3)
    assert mind.states("sample") == ["", "B"]
    assert mind.states("rest") == ["B\n\nx"]
    assert len(done.final.candidates) == 1


@pytest.mark.parametrize(
    ("listed", "thoughts"),
    [
        (["Here are some:", "1. one", "2) two", "(3) three"], ["one", "two", "three"]),
        (["**1.** one", "more of it", "", "**2.** two"], ["one\nmore of it", "two"]),
        (["1. one", "   - a detail", "2. two"], ["one\n   - a detail", "two"]),
        (["Possible steps:", "- one", "* two"], ["one", "two"]),
        (["one", "", "two"], ["one", "two"]),
        (["1. one", "1. one", "2. 2.5 is half"], ["one", "2.5 is half"]),
        (["1. one", "2. two", "3. three", "4. four"], ["one", "two", "three"]),
        ([""], []),
    ],
)
def test_proposals_are_read_from_a_list(listed: list[str], thoughts: list[str]) -> None:
    mind = Mind({"": listed}, {})
    done = run(mind, generator="propose", n_generate=3, max_steps=1)
    assert mind.states("value") == thoughts
    assert mind.states("rest") == (thoughts or [""])
    assert mind.states("propose") == [""]
    generated = sum(c.sample.completion_tokens for c in done.final.candidates)
    assert generated <= done.account.usage.completion_tokens


def test_a_proposal_costs_its_own_tokens_and_keeps_within_the_limit() -> None:
    task = replace(TASK, sampling=Sampling(seed=1, max_tokens=4))
    done = run(Mind({"": ["1. a b", "2. a b c d e"]}), task=task, generator="propose", n_generate=3, max_steps=1)
    ends = {c.text: (c.sample.finish_reason, c.sample.completion_tokens) for c in done.final.candidates}
    assert ends == {"a b\n\nSo it": ("length", 4), "a b c d": ("length", 4)}


def test_max_tokens_bounds_the_answer_and_not_the_verdicts() -> None:
    task = replace(TASK, sampling=Sampling(seed=1, max_tokens=5))
    words = {"A a": ["let me see what this is about and then say it is\nsure"] * 3, "B": ["likely"] * 3}
    done = run(Mind({"": ["A a", "B"]}, words), task=task, n_generate=2, max_steps=1)
    ends = {c.text: (c.sample.finish_reason, c.sample.completion_tokens) for c in done.final.candidates}
    assert ends == {"A a\n\nSo it": ("length", 5), "B\n\nSo it is": ("length", 5)}
    assert done.final.best.text.startswith("A a")


def test_a_stop_string_of_the_client_ends_the_solution() -> None:
    task = replace(TASK, sampling=Sampling(seed=1, stop=("STOP",)))
    mind = Mind({"": ["A STOP more", "B"]}, {"A": ["sure"] * 3})
    done = run(mind, task=task, n_generate=2, breadth=1)
    assert mind.states("rest") == []
    assert done.final.best.text.strip() == "A"
    assert done.final.best.sample.finish_reason == "stop"


def test_the_conversation_stays_before_the_thoughts() -> None:
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
    seen: list[FakeRequest] = []
    mind = Mind({"": ["A"]})

    def script(request: FakeRequest) -> str:
        seen.append(request)
        return mind(request)

    entry = strategies.get("tree_of_thoughts")
    task = replace(TASK, prompt=Prompt(turns))
    engine = FakeEngine(script, continues=False)
    asyncio.run(search(entry, engine, task=task, n_generate=1, n_evaluate=1, max_steps=1))
    assert seen[0].messages[0] == turns[0]
    assert str(seen[0].messages[1]["content"]).startswith("Why?\n\nWrite only the first step")
    assert seen[0].sampling.temperature == 0.7


def test_a_spent_budget_returns_the_best_state() -> None:
    done = run(Mind(TREE, WORDS), n_generate=3, breadth=2, budget=Budget(max_samples=3 + 9))
    assert done.account.stop_reason == "max_samples"
    assert (done.final.best.text, done.final.best.sample.finish_reason) == ("B", "budget")


def test_what_it_cannot_do_is_refused() -> None:
    def refused(task: Task = TASK, **options: Any) -> str | None:
        mind = Mind(TREE)
        with pytest.raises(Refused) as caught:
            run(mind, task=task, **options)
        assert mind.asked == []
        return caught.value.param

    assert refused(evaluator="prm") == "tts.evaluator"
    assert refused(replace(TASK, choices=3), breadth=2) == "n"
    assert refused(replace(TASK, choices=3), search="dfs", max_visits=2) == "n"
    assert refused(replace(TASK, sampling=Sampling(structured={"type": "json_object"}))) == "response_format"
    prompt = replace(TASK.prompt, template={"continue_final_message": True})
    assert refused(replace(TASK, prompt=prompt)) == "continue_final_message"


@pytest.mark.parametrize("stop", ["\n\nQuestion:", "7.\n\nQuestion", "x = 7.\n\nQuestion: 4"])
def test_a_stop_string_across_thoughts_ends_the_solution(stop: str) -> None:
    mind = Mind({"": ["So x = 7."], "So x = 7.": ["Question: 4 + 5?"]}, rests={})
    task = replace(TASK, sampling=replace(TASK.sampling, stop=(stop,)))
    done = run(mind, FakePRM(), task=task, n_generate=1)
    best = done.final.best
    assert best.text == "So x = 7.\n\nQuestion: 4".partition(stop)[0]
    assert best.sample.finish_reason == "stop"
    assert best.sample.completion_tokens == done.account.usage.completion_tokens
    assert mind.states("rest") == []


def test_a_stop_string_before_the_rest_of_a_solution_ends_it() -> None:
    mind = Mind({"": ["So x = 7."]}, rests={"So x = 7.": "Question: 4 + 5 is \\boxed{9}."})
    task = replace(TASK, sampling=replace(TASK.sampling, stop=("\n\nQuestion:",)))
    done = run(mind, FakePRM(), task=task, n_generate=1, max_steps=1)
    assert (done.final.best.text, done.final.best.sample.finish_reason) == ("So x = 7.", "stop")
