"""The toy world's chances, and that strategies reach in it what mathematics says they must."""

import asyncio
import math
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise, product
from random import Random
from typing import Any

import pytest
from searching import search

import strategies
from bench.simulation.closed_forms import best_of_n_accuracy, majority_accuracy
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import ToyEngine, World
from prm import PRMInputError
from strategies import Entry
from strategies.core.contracts import Engine, Prompt, Refused, Sample, Sampling
from tts_server.engines.fake import FakeEngine

SEEDS = 1000
WORLD = World(p_step=0.85, depth=4, wrong=(0.5, 0.3, 0.2))


def interval(p: float, n: int) -> tuple[float, float]:
    """Where a share of n draws lies with 99.9 %, if its chance is p."""
    half = 3.2905 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def drawn(world: World, n: int = SEEDS, **sampling: Any) -> list[Sample]:
    return asyncio.run(collect(ToyEngine(world), world.task().prompt, Sampling(seed=1, **sampling), n))


async def collect(engine: Engine, prompt: Prompt, sampling: Sampling, n: int) -> list[Sample]:
    samples = [Sample() for _ in range(n)]
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        async for chunk in chunks:
            samples[chunk.index].chunks.append(chunk)
    return samples


def accuracy(name: str, prm: ToyPRM | None, world: World, **options: Any) -> float:
    """The share of questions, each with a seed of its own, on which the strategy is right."""
    entry = strategies.get(name)

    async def right(seed: int) -> bool:
        question = replace(world, seed=seed)
        done = await search(entry, ToyEngine(question), prm, task=question.task(seed), **options)
        return done.final.best.answer == question.gold

    async def main() -> list[bool]:
        return [await right(seed) for seed in range(SEEDS)]

    return sum(asyncio.run(main())) / SEEDS


def test_answers_come_with_their_chances() -> None:
    counts = Counter(sample.text.rpartition("{")[2].removesuffix("}.") for sample in drawn(WORLD))
    assert set(counts) == set(WORLD.answers)
    assert sum(WORLD.answers.values()) == pytest.approx(1)
    assert WORLD.p_solve == pytest.approx(0.85**4)
    for answer, chance in WORLD.answers.items():
        low, high = interval(chance, SEEDS)
        assert low <= counts[answer] / SEEDS <= high


def test_an_error_stays_unless_the_policy_recovers() -> None:
    for recover in (0.0, 0.3):
        world = World(p_step=0.7, depth=4, recover=recover)
        labels = [[step.split()[2] == "right" for step in s.text.split("\n\n")] for s in drawn(world)]
        after_error = [after for path in labels for before, after in pairwise(path) if not before]
        low, high = interval(recover, len(after_error))
        assert low <= sum(after_error) / len(after_error) <= high
        low, high = interval(world.p_solve, SEEDS)
        assert low <= sum(path[-1] for path in labels) / SEEDS <= high


def test_steps_are_distinct_and_as_long_as_said() -> None:
    samples = drawn(WORLD)
    steps = [step for sample in samples for step in sample.text.split("\n\n")]
    assert len(steps) == SEEDS * WORLD.depth
    assert len(set(steps)) > 0.999 * len(steps)
    lengths = [chunk.completion_tokens for s in samples for chunk in s.chunks[:-1]]
    assert {*lengths} == {*range(WORLD.lengths[0], WORLD.lengths[1] + 1)}
    mean = sum(sample.completion_tokens for sample in samples) / SEEDS
    deviation = math.sqrt(WORLD.depth * (9**2 - 1) / 12 / SEEDS)
    assert abs(mean - WORLD.mean_tokens) < 3.2905 * deviation
    assert all(len(s.token_ids) + 1 == s.completion_tokens for s in samples)


def test_everything_follows_from_seeds() -> None:
    assert [s.text for s in drawn(WORLD, 5)] == [s.text for s in drawn(WORLD, 5)]
    unseeded = [asyncio.run(collect(ToyEngine(WORLD, seed=s), WORLD.task().prompt, Sampling(), 2)) for s in (1, 1, 2)]
    assert unseeded[0] == unseeded[1] != unseeded[2]
    assert World(seed=1).question != World(seed=2).question
    assert World(seed=1).gold != World(seed=2).gold


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=3),
        Sampling(seed=3, temperature=0.0),
        Sampling(seed=3, stop=("\n\n",), include_stop=True),
        Sampling(seed=3, stop=("boxed",)),
    ],
)
def test_the_fake_engine_plays_the_same_world(sampling: Sampling) -> None:
    async def main(engine: Engine) -> list[tuple[str, str | None, str | None]]:
        samples = await collect(engine, WORLD.task().prompt, sampling, 4)
        return [(s.text, s.finish_reason, s.chunks[-1].stop) for s in samples]

    assert asyncio.run(main(ToyEngine(WORLD))) == asyncio.run(main(FakeEngine(WORLD.script)))


@pytest.mark.parametrize("name", ["best_of_n", "beam_search"])
def test_a_search_comes_to_the_same_on_both_engines(name: str) -> None:
    entry = strategies.get(name)

    def answer(engine: Engine) -> list[str]:
        run = search(entry, engine, ToyPRM(0.3), task=WORLD.task(5), n=8)
        return [candidate.text for candidate in asyncio.run(run).final.candidates]

    assert answer(ToyEngine(WORLD)) == answer(FakeEngine(WORLD.script))


def test_a_policy_continues_where_its_text_ends() -> None:
    start = "<user>?\n<assistant>"
    wrong = "Step 1/4 right 00000:\n\nStep 2/4 wrong 00000:\n\n"
    rest = WORLD.go_on(start + wrong, Random(0))
    assert rest.startswith("Step 3/4 wrong ")
    assert WORLD.go_on(start + wrong.rstrip(), Random(0)) == f"\n\n{rest}"
    whole = start + wrong + rest
    assert WORLD.go_on(whole, Random(0)) == ""
    assert WORLD.go_on(whole.rpartition(" The")[0], Random(0)).startswith(r" The answer is \boxed{")
    again = World(depth=4, recover=1.0).go_on(f"{whole} Wait,", Random(0))
    assert again.startswith("\n\nStep 4/4 right ")
    assert again.count("boxed") == 1


def test_greedy_takes_the_likelier_step() -> None:
    assert "wrong" not in WORLD.go_on("", Random(0), greedy=True)
    unable = World(p_step=0.4, wrong=(0.1, 0.9))
    assert unable.go_on("", Random(0), greedy=True).endswith(rf"\boxed{{{int(unable.gold) + 2}}}.")


def test_the_engine_keeps_to_a_samples_limit_and_says_what_it_knows() -> None:
    cut = drawn(WORLD, 3, max_tokens=7, logprobs=1)
    assert [(s.completion_tokens, s.finish_reason) for s in cut] == [(7, "length")] * 3
    for sample in cut:
        doubted = sample.logprobs[2]
        assert {rival.token for rival in doubted.top} == {" right", " wrong"}
        assert sum(math.exp(rival.logprob) for rival in doubted.top) == pytest.approx(1)
        assert [logprob.logprob for i, logprob in enumerate(sample.logprobs) if i != 2] == [0.0] * 6
    with pytest.raises(Refused, match="cannot constrain"):
        drawn(WORLD, structured={"type": "json_object"})


def test_logprobs_tell_of_errors_as_much_as_said() -> None:
    sure: dict[str, list[float]] = {" right": [], " wrong": []}
    for sample in drawn(World(p_step=0.8, insight=0.3), 400, logprobs=0):
        for logprob in sample.logprobs:
            if logprob.token in sure:
                sure[logprob.token].append(math.exp(logprob.logprob))
    # Uniform on [0.5, 1], and that times 0.7.
    for token, mean in ((" right", 0.75), (" wrong", 0.525)):
        deviation = mean / 1.5 / math.sqrt(12 * len(sure[token]))
        assert abs(sum(sure[token]) / len(sure[token]) - mean) < 3.2905 * deviation


def scores(prm: ToyPRM, worlds: int = 60) -> dict[bool, list[float]]:
    """The last step's scores of many solutions, by whether they are right."""
    found: dict[bool, list[float]] = {True: [], False: []}

    async def main() -> None:
        for seed in range(worlds):
            world = World(seed, depth=3)
            for sample in await collect(ToyEngine(world), world.task(seed).prompt, Sampling(seed=seed), 30):
                (result,) = await prm.score(world.question, [sample.text.split("\n\n")])
                found[world.gold in sample.text].append(result.scores[-1])

    asyncio.run(main())
    return found


def test_a_reward_model_is_as_good_as_said() -> None:
    perfect = scores(ToyPRM(1.0))
    assert set(perfect[True]) == {1.0}
    assert set(perfect[False]) == {0.0}
    for quality in (0.0, 0.2, 0.5):
        prm = ToyPRM(quality)
        found = scores(prm)
        for right, values in found.items():
            of = prm.distribution(right)
            low, high = interval(0.5, len(values))
            assert low <= sum(value < of.mean for value in values) / len(values) <= high
        pairs = [(a > b) + (a == b) / 2 for a, b in product(found[True], found[False])]
        # The variance of a Mann-Whitney statistic is at most AUC (1 - AUC) / the smaller group.
        low, high = interval(prm.auc, len(found[False]))
        assert low <= sum(pairs) / len(pairs) <= high
    assert ToyPRM(0.0).auc == 0.5
    assert ToyPRM(1.0).auc == 1.0


def test_a_solution_keeps_its_scores_as_it_grows() -> None:
    steps = WORLD.go_on("", Random(0)).split("\n\n")

    async def main(prm: ToyPRM) -> list[tuple[float, ...]]:
        return [r.scores for r in await prm.score("?", [steps[: k + 1] for k in range(len(steps))])]

    grown = asyncio.run(main(ToyPRM(0.5, seed=1)))
    assert grown == [grown[-1][: k + 1] for k in range(len(steps))]
    assert asyncio.run(main(ToyPRM(0.5, seed=2))) != grown
    with pytest.raises(PRMInputError):
        asyncio.run(ToyPRM(0.5).score("?", [[]]))


def test_blind_spots_are_as_frequent_as_said_and_outlast_the_error() -> None:
    prm = ToyPRM(0.5, noise=0.05, blind_questions=0.5, blind_errors=0.4)
    wrong = scores(prm, 400)[False]
    seen = sum(score == 1.0 for score in wrong) / len(wrong)
    # Solutions of one question share whether it has blind spots, so there are only 400 independent draws.
    low, high = interval(0.2, 400)
    assert low <= seen <= high
    assert all(score == 1.0 or score < 0.6 for score in wrong)
    for quality in (0.0, 1.0):
        same = [scores(ToyPRM(quality, blind_questions=share), 20) for share in (0.0, 1.0)]
        assert same[0] == same[1]


def test_a_world_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        World(wrong=(0.5, 0.4))
    with pytest.raises(ValueError, match="at least 6 tokens"):
        World(lengths=(5, 8))
    with pytest.raises(ValueError, match="quality is in"):
        ToyPRM(1.1)


@pytest.mark.parametrize("n", [1, 4, 16])
def test_best_of_n_with_a_perfect_verifier(n: int) -> None:
    hard = World(p_step=0.6, depth=4)
    low, high = interval(1 - (1 - hard.p_solve) ** n, SEEDS)
    assert low <= accuracy("best_of_n", ToyPRM(1.0), hard, n=n, selector="best") <= high


@pytest.mark.parametrize("quality", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("n", [2, 8])
def test_best_of_n_with_a_noisy_verifier(n: int, quality: float) -> None:
    # A low noise, because where two scores are clipped to the same, the vote's rule for ties counts.
    prm = ToyPRM(quality, noise=0.15)
    low, high = interval(best_of_n_accuracy(WORLD.p_solve, n, prm), SEEDS)
    assert low <= accuracy("best_of_n", prm, WORLD, n=n, selector="best") <= high


@pytest.mark.parametrize(("p_step", "n"), [(0.9, 3), (0.9, 8), (0.75, 16), (0.6, 16)])
def test_majority_of_n(p_step: float, n: int) -> None:
    world = World(p_step=p_step, depth=4, wrong=(0.5, 0.3, 0.2))
    gold, *wrong = world.answers.values()
    low, high = interval(majority_accuracy(gold, wrong, n), SEEDS)
    assert low <= accuracy("self_consistency", None, world, n=n) <= high


def test_the_closed_forms_agree_with_counting() -> None:
    shares = (0.5, 0.3, 0.2)
    won = 0.0
    for votes in product(range(3), repeat=5):
        counts = Counter(votes)
        chance = math.prod(shares[vote] for vote in votes)
        won += chance * (counts.most_common(1)[0][0] == 0)
    assert majority_accuracy(shares[0], shares[1:], 5) == pytest.approx(won)
    assert majority_accuracy(0.4, (0.6,), 1) == pytest.approx(0.4)
    assert majority_accuracy(1.0, (0.0, 0.0), 4) == pytest.approx(1.0)
    for n in (1, 7):
        assert best_of_n_accuracy(0.3, n, ToyPRM(0.0)) == pytest.approx(0.3, abs=1e-4)
    assert best_of_n_accuracy(0.3, 4, ToyPRM(1.0)) == pytest.approx(1 - 0.7**4)
    assert best_of_n_accuracy(0.3, 1, ToyPRM(0.5)) == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("entry", strategies.registry().values(), ids=lambda entry: entry.name)
def test_every_strategy_runs_in_it(entry: Entry) -> None:
    prm = ToyPRM(0.5) if entry.scored else None
    done = asyncio.run(search(entry, ToyEngine(WORLD), prm, task=WORLD.task(1)))
    assert done.final.best.answer in WORLD.answers
    assert done.account.usage.completion_tokens >= done.final.best.sample.completion_tokens > 0
