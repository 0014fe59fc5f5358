"""A tree small enough to be written down: which steps are expanded, what votes, what it costs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from searching import TASK, Search, search

import strategies
from prm import FakePRM, PRMError, StepScores
from strategies.core.account import Budget
from strategies.core.contracts import Refused
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest

MCTS = strategies.get("mcts")
SCORES = {"A": 0.6, "B": 0.5, "AA": 0.9, "AB": 0.2, "BA": 0.4, "BB": 0.3}
ANSWERS = {"AA": "1", "AB": "2", "BA": "2", "BB": "2"}


@dataclass(slots=True)
class Forest:
    """Two steps, of which each is A or B: sample 0 goes to A, 1 to B. The last step names the path's answer."""

    answers: dict[str, str] = field(default_factory=lambda: dict(ANSWERS))
    priors: dict[str, float] = field(default_factory=dict)
    steps: int = 2
    lost: tuple[str, ...] = ()
    """Paths whose expansion fails."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """(path, sample) in the order in which they were drawn."""

    def __call__(self, request: FakeRequest) -> FakeReply:
        path = "".join(c for c in request.text.rpartition("<assistant>")[2] if c in "AB")
        self.asked.append((path, request.index))
        if path in self.lost:
            raise ConnectionError(f"{path} is lost")
        step = "AB"[request.index % 2]
        path += step
        end = "\n\n" if len(path) < self.steps else rf" \boxed{{{self.answers.get(path, path.count('A'))}}}"
        rivals = {step: self.priors.get(path, 0.5), "\n": 1.0}
        return FakeReply(step + end, rivals)

    @property
    def expanded(self) -> list[str]:
        """The paths in the order of their expansion."""
        return [path for path, index in self.asked if index == 1]


def by_path(question: str, steps: Sequence[str]) -> list[float]:
    letters = [step[0] for step in steps]
    return [SCORES["".join(letters[: i + 1])] for i in range(len(letters))]


def run(forest: Forest, prm: FakePRM | None = None, **options: Any) -> Search:
    options = {"branch": 2, "parallel": 1, **options}
    return asyncio.run(search(MCTS, FakeEngine(forest), prm, **options))


def paths(done: Search) -> list[str]:
    return ["".join(c for c in candidate.text if c in "AB") for candidate in done.final.candidates]


@pytest.mark.parametrize("selection", ["puct", "uct"])
def test_a_rollout_follows_the_best_score_to_an_end_and_all_ends_vote(selection: str) -> None:
    forest = Forest()
    done = run(forest, FakePRM(by_path), n=1, selection=selection)
    assert forest.expanded == ["", "A"]
    assert paths(done) == ["AA", "AB"]
    assert [c.score for c in done.final.candidates] == [0.9, 0.2]
    assert done.final.best.answer == "1"
    assert (len(forest.expanded), done.account.usage.samples) == (2, 2)
    assert done.account.usage.prm_calls == 2


def test_the_vote_over_all_leaves_decides_not_the_best_or_the_most_visited_path() -> None:
    done = run(Forest(), FakePRM(by_path), n=8)
    # 0.9 for 1; 0.2 + 0.4 + 0.3 = 0.9 for 2, and with AB at 0.3 it is ahead.
    assert done.final.votes[0].weight == pytest.approx(0.9)
    raised = {**SCORES, "AB": 0.3}
    prm = FakePRM(lambda q, steps: [raised["".join(s[0] for s in steps[: i + 1])] for i in range(len(steps))])
    final = run(Forest(), prm, n=8).final
    assert final.best.answer == "2"
    assert final.confidence == pytest.approx(1.0 / 1.9)
    assert run(Forest(), FakePRM(by_path), n=8, selector="best").final.best.answer == "1"
    assert run(Forest(), FakePRM(by_path), n=8, selector="majority").final.best.answer == "2"


@pytest.mark.parametrize("selection", ["puct", "uct"])
@pytest.mark.parametrize("parallel", [1, 3, 8])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_enough_rollouts_are_brute_force(selection: str, parallel: int, steps: int) -> None:
    forest = Forest(steps=steps, answers={})
    prm = FakePRM(lambda q, done: [0.5 + 0.1 * step.startswith("A") for step in done], aggregation="prod")
    done = run(forest, prm, n=64, selection=selection, parallel=parallel)
    every = ["".join(path) for path in product("AB", repeat=steps)]
    assert sorted(paths(done)) == every
    assert len(forest.asked) == 2 * sum(2**depth for depth in range(steps))
    weights: dict[str, float] = {}
    for path in every:
        answer = str(path.count("A"))
        weights[answer] = weights.get(answer, 0.0) + 0.6 ** path.count("A") * 0.5 ** path.count("B")
    assert {vote.answer: vote.weight for vote in done.final.votes} == pytest.approx(weights)


def test_virtual_loss_sends_rollouts_of_a_wave_apart() -> None:
    alone, together = Forest(steps=3), Forest(steps=3)
    prm = FakePRM(lambda q, steps: [0.6 if steps[0][0] == "A" else 0.5] * len(steps))
    run(alone, prm, n=2, exploration=0.1)
    run(together, prm, n=2, exploration=0.1, parallel=2)
    assert alone.expanded == ["", "A", "AA", "AB"]
    assert together.expanded == ["", "A", "B", "AA", "BA"]


def test_puct_prefers_what_the_policy_finds_likely_and_uct_does_not() -> None:
    likely = {"A": 0.05, "B": 1.0, "AA": 0.5, "AB": 0.5}
    chosen = {}
    for selection in ("puct", "uct"):
        forest = Forest(priors=likely, steps=3)
        run(forest, FakePRM(lambda q, steps: [0.5] * len(steps)), n=3, selection=selection, exploration=5.0)
        chosen[selection] = [path[0] for path in forest.expanded if len(path) == 2]
    assert chosen == {"puct": ["A", "B", "B"], "uct": ["A", "B", "A"]}


def test_the_priors_are_the_steps_probabilities() -> None:
    # Each step is one token and two line ends of probability 1, so its mean probability is the cube root.
    a, b = 0.2 ** (1 / 3), 0.9 ** (1 / 3)
    # The first rollout goes to A by its score, 0.5. Then N is 1, and B is next if 0.3 + c P(B) > 0.5 + c P(A) / 2.
    edge = 0.2 / (b / (a + b) - a / (a + b) / 2)
    prm = FakePRM(lambda q, steps: [0.5 if steps[0][0] == "A" else 0.3] * len(steps))
    for c, goes_to_b in ((edge * 0.99, False), (edge * 1.01, True)):
        forest = Forest(priors={"A": 0.2, "B": 0.9}, steps=3)
        run(forest, prm, n=2, exploration=c)
        assert ("B" in forest.expanded) == goes_to_b


def test_exploration_0_exploits() -> None:
    forest = Forest(steps=3)
    run(forest, FakePRM(lambda q, steps: [0.6 if steps[0][0] == "A" else 0.5] * len(steps)), n=4, exploration=0.0)
    assert forest.expanded == ["", "A", "AA", "AB"]


def test_steps_that_read_the_same_grow_once_and_equal_ends_are_as_many_votes() -> None:
    scored: list[int] = []

    def same(question: str, steps: Sequence[str]) -> list[float]:
        scored.append(len(steps))
        return [0.5] * len(steps)

    script = Forest(steps=2)
    engine = FakeEngine(lambda request: script(replace(request, index=0)))
    done = asyncio.run(search(MCTS, engine, FakePRM(same), n=8, branch=4, parallel=1))
    assert scored == [1, 2, 2, 2, 2]
    assert paths(done) == ["AA"] * 4
    assert done.account.usage.samples == 4


def test_without_a_reward_model_a_rollout_is_one_sample_and_agreement_its_value() -> None:
    forest = Forest(steps=3, answers={})
    done = run(forest, n=1)
    # The root is expanded, then the first child is sampled to its end.
    assert forest.asked == [("", 0), ("", 1), ("A", 0), ("AA", 0)]
    assert paths(done) == ["AAA"]
    assert done.final.selector == "majority"
    assert done.account.usage.prm_calls == 0


def test_agreement_leads_rollouts_to_what_others_answer() -> None:
    # What begins with A answers 1 whatever follows, what begins with B never twice the same.
    answers = {f"A{x}{y}{z}": "1" for x, y, z in product("AB", repeat=3)}
    answers |= {f"B{x}{y}{z}": str(10 + i) for i, (x, y, z) in enumerate(product("AB", repeat=3))}
    forest = Forest(steps=4, answers=answers)
    done = run(forest, n=10, selection="uct", exploration=0.2)
    begun = [path[0] for path in paths(done)]
    assert begun.count("A") > begun.count("B") >= 1
    assert done.final.best.answer == "1"


def test_rollouts_can_be_the_value_and_scores_the_weight() -> None:
    done = run(Forest(), FakePRM(by_path), n=4, value="rollout")
    assert done.account.usage.prm_calls == 1
    assert [c.score for c in done.final.candidates] == [SCORES[path] for path in paths(done)]
    assert done.final.selector == "weighted"
    unscored = run(Forest(), FakePRM(by_path), n=4, value="rollout", selector="majority")
    assert unscored.account.usage.prm_calls == 0


def test_no_budget_for_scores_lets_the_majority_decide() -> None:
    def votes(**options: Any) -> Search:
        run = search(MCTS, FakeEngine(Forest()), FakePRM(by_path), n=6, branch=2, value="rollout", **options)
        return asyncio.run(run)

    done = votes(budget=Budget(max_prm_tokens=0))
    assert done.account.stop_reason == "max_prm_tokens"
    assert done.final.votes == votes(selector="majority").final.votes


def test_max_steps_ends_a_rollout_with_an_unfinished_solution() -> None:
    forest = Forest(steps=5)
    for value in ("prm", "rollout"):
        forest.asked.clear()
        prm = FakePRM(lambda q, steps: [0.5] * len(steps))
        done = run(forest, prm, n=1, max_steps=2, value=value, selector="majority")
        assert max(len(path) for path, _ in forest.asked) == 1
        assert {c.sample.finish_reason for c in done.final.candidates} == {"length"}


def test_a_subtree_that_fails_is_left_and_the_others_go_on() -> None:
    forest = Forest(lost=("A",))
    done = run(forest, FakePRM(by_path), n=4)
    # The lost one is shown behind those that ended.
    assert paths(done) == ["BA", "BB", "A"]
    assert [c.sample.finish_reason == "error" for c in done.final.candidates] == [False, False, True]
    assert forest.expanded == ["", "A", "B"]
    with pytest.raises(ConnectionError, match="is lost"):
        run(Forest(lost=("A", "B")), FakePRM(by_path), n=4)


def test_a_count_that_does_not_match_is_an_error_not_a_0() -> None:
    class Short(FakePRM):
        async def score(self, *args: Any, **kwargs: Any) -> list[StepScores]:
            return [StepScores(r.scores[1:]) for r in await super().score(*args, **kwargs)]

    with pytest.raises(PRMError, match="scores for solutions of"):
        run(Forest(), Short(by_path), n=4)


def test_root_noise_changes_the_first_step_by_the_seed_alone() -> None:
    def first(seed: int, noise: float) -> list[str]:
        forest = Forest(steps=3)
        task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
        prm = FakePRM(lambda q, steps: [0.5] * len(steps))
        options = {"n": 3, "branch": 2, "parallel": 1, "root_noise": noise, "exploration": 3.0}
        asyncio.run(search(MCTS, FakeEngine(forest), prm, task=task, **options))
        return forest.expanded

    assert first(1, 1.0) == first(1, 1.0)
    assert len({tuple(first(seed, 1.0)) for seed in range(8)}) > 1
    assert len({tuple(first(seed, 0.0)) for seed in range(8)}) == 1


@pytest.mark.parametrize(
    ("options", "param"),
    [({"value": "prm"}, "tts.prm"), ({"selection": "uct", "root_noise": 0.2}, "tts.root_noise")],
)
def test_what_it_cannot_do_is_refused_before_any_token(options: dict[str, Any], param: str) -> None:
    engine = FakeEngine(Forest())
    with pytest.raises(Refused) as caught:
        asyncio.run(search(MCTS, engine, None, **options))
    assert caught.value.param == param
    assert engine.generated == 0


@pytest.mark.parametrize("value", ["prm", "rollout"])
def test_every_expansion_and_rollout_has_a_seed_of_its_own(value: str) -> None:
    calls: list[tuple[int | None, str]] = []
    forest = Forest(steps=3)

    def script(request: FakeRequest) -> FakeReply:
        if request.index == 0:
            calls.append((request.sampling.seed, request.text))
        return forest(request)

    prm = FakePRM(lambda q, steps: [0.5] * len(steps))
    asyncio.run(search(MCTS, FakeEngine(script), prm, n=6, branch=2, parallel=2, value=value, selector="majority"))
    assert len(calls) > 5
    assert len({seed for seed, _ in calls}) == len(calls)


@pytest.mark.parametrize("value", ["prm", "rollout"])
def test_what_ended_votes_without_what_reached_max_steps(value: str) -> None:
    def script(request: FakeRequest) -> str:
        path = "".join(c for c in request.text.rpartition("<assistant>")[2] if c in "AB")
        step = path[:1] or "AB"[request.index]
        return r"A \boxed{1}" if path and step == "A" else f"{step} \\boxed{{2}}\n\n"

    prm = FakePRM(lambda q, steps: [0.9 if steps[0][0] == "B" else 0.1] * len(steps))
    options = {"n": 6, "branch": 2, "max_steps": 2, "value": value, "selector": "majority"}
    final = asyncio.run(search(MCTS, FakeEngine(script), prm, **options)).final
    assert {c.answer for c in final.candidates} == {"1"}


def test_the_longest_unfinished_solution_is_returned_where_none_ended() -> None:
    done = run(Forest(steps=9), n=1, max_steps=3)
    assert max(len(path) for path in paths(done)) == 3
    assert "".join(c for c in done.final.best.text if c in "AB") == "AAA"
