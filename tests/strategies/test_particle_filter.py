"""Weights, resampling, and particles that have ended."""

import asyncio
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some
from letters import Done
from searching import search

import strategies
from prm import FakePRM
from strategies.particle_filter import Resampling, resample, weights
from tts_server.engines.fake import FakeEngine, FakeRequest


def test_weights_are_odds_at_temperature_one() -> None:
    assert weights([0.5, 0.75], 1.0) == pytest.approx([0.25, 0.75])


def test_certain_rewards_have_finite_weights() -> None:
    assert all(map(math.isfinite, weights([0.0, 1.0, 0.5], 1.0)))


@given(some.lists(some.floats(0, 1), min_size=1, max_size=30), some.integers(1, 64), some.integers())
def test_systematic_resampling_takes_floor_or_ceil_of_each_share(rewards: list[float], n: int, seed: int) -> None:
    shares = weights(rewards, 1.0)
    counts = Counter(resample(shares, n, "systematic", random.Random(seed)))
    assert sum(counts.values()) == n
    for index, share in enumerate(shares):
        assert math.floor(n * share - 1e-6) <= counts[index] <= math.ceil(n * share + 1e-6)


def test_a_point_beyond_the_rounded_sum_takes_the_last_index() -> None:
    class Late(random.Random):
        def random(self) -> float:
            return 1 - 2**-53

    assert resample([0.1] * 10, 10, "systematic", Late())[-1] == 9


@pytest.mark.parametrize("how", ["multinomial", "systematic"])
def test_resampling_is_unbiased(how: Resampling) -> None:
    rng, shares, draws = random.Random(3), [0.6, 0.3, 0.1], 3000
    counts = Counter(i for _ in range(draws) for i in resample(shares, 4, how, rng))
    for index, share in enumerate(shares):
        error = 3.3 * math.sqrt(share * (1 - share) * 4 / draws)
        assert abs(counts[index] / draws - 4 * share) < 4 * error


@pytest.mark.parametrize("how", ["multinomial", "systematic"])
def test_n_particles_end_as_n_candidates(how: Resampling) -> None:
    done = Done("particle_filter", n=8, resampling=how)
    assert len(done.final.candidates) == 8
    assert all(len(path) == 3 for path in done.paths)


def test_ended_particles_are_not_generated_again() -> None:
    done = Done("particle_filter", depth=1, n=4)
    assert done.account.usage.samples == 4


def test_a_cold_filter_follows_the_best_particle() -> None:
    done = Done("particle_filter", n=8, weight_temperature=0.01)
    assert {path[:2] for path in done.paths} == {"aa"}


def test_gibbs_keeps_a_particle_of_the_iteration_before() -> None:
    done = Done("particle_filter", n=4, iterations=3)
    assert len(done.final.candidates) == 12
    assert len(set(done.paths[:4]) & set(done.paths[4:8])) >= 1
    # The kept particle is not generated again.
    assert done.account.usage.samples == 4 + 3 + 3


def test_particles_are_weighed_by_their_rewards_odds_and_keep_their_scores() -> None:
    # By their odds 0.95 counts for 19 and 0.7 for 2.3, so one outweighs three; by the rewards themselves it would not.
    def script(request: FakeRequest) -> str:
        return r"A \boxed{1}" if request.index == 0 else r"B \boxed{2}"

    prm = FakePRM(lambda question, steps: [0.95 if "{1}" in steps[-1] else 0.7])
    final = asyncio.run(search(strategies.get("particle_filter"), FakeEngine(script), prm, n=4)).final
    assert final.best.answer == "1"
    assert sorted(c.score for c in final.candidates if c.score is not None) == [0.7, 0.7, 0.7, 0.95]
    assert final.confidence == pytest.approx(19 / (19 + 3 * 0.7 / 0.3))
