"""Whether the policy still fits: told by what clients say, and where they say nothing by what changes."""

import random
from typing import Any

import pytest

from strategies.core.contracts import Candidate, Chunk, Final, Sample
from tts_server.planning.drift import LEAST, REFERENCE, WINDOW, Drift, Pair, calibration_error, chance_error, stability


def decision(predicted: float | None, agreement: float | None = None, *, explored: bool = False) -> dict[str, Any]:
    return {"predicted_accuracy": predicted, "agreement": agreement, "explored": explored}


def observing(seed: int, answers: int, bias: float) -> Drift:
    """Answers that are right with a chance `bias` below what was predicted."""
    rng, drift = random.Random(seed), Drift()
    for place in range(answers):
        predicted = rng.uniform(0.3, 0.95)
        drift.observed(f"trace-{place}", decision(predicted), float(rng.random() < predicted - bias))
    return drift


def test_nothing_is_known_at_first() -> None:
    seen = Drift().snapshot()
    assert (seen.decided, seen.explored, seen.observed, seen.alarms, seen.alarm) == (0, 0, 0, (), False)
    assert (seen.predicted, seen.accuracy, seen.ece, seen.psi, seen.agreement) == (None,) * 5


def test_decisions_and_explorations_are_counted() -> None:
    drift = Drift()
    for place in range(40):
        drift.decided(decision(0.5, 0.75, explored=place % 10 == 0))
    seen = drift.snapshot()
    assert (seen.decided, seen.explored) == (40, 4)
    assert seen.agreement == pytest.approx(0.75)


def test_a_search_that_decides_nothing_tells_nothing() -> None:
    drift, candidate = Drift(), Candidate(Sample([Chunk(0, text="4", finish_reason="eos")]), "4")
    drift.ended(None)
    drift.ended(Final((candidate,), (0,), confidence=0.5))
    assert drift.snapshot().decided == 0
    drift.ended(Final((candidate,), (0,), decision=decision(0.7, 0.5)))
    seen = drift.snapshot()
    assert (seen.decided, seen.agreement) == (1, 0.5)


@pytest.mark.parametrize("answers", [LEAST, 150, WINDOW])
def test_a_policy_that_fits_rarely_rings(answers: int) -> None:
    rung = sum(observing(seed, answers, 0.0).snapshot().alarm for seed in range(100))
    assert rung <= 5


@pytest.mark.parametrize(("bias", "answers"), [(0.3, 150), (0.15, WINDOW), (-0.3, 150)])
def test_one_that_does_not_fit_rings(bias: float, answers: int) -> None:
    drifts = [observing(seed, answers, bias).snapshot() for seed in range(20)]
    assert sum(seen.alarms == ("calibration",) for seen in drifts) >= 18


def test_a_few_answers_ring_nothing() -> None:
    seen = observing(1, LEAST - 1, 0.3).snapshot()
    assert (seen.observed, seen.ece, seen.alarm) == (LEAST - 1, None, False)
    assert seen.predicted is not None
    assert seen.accuracy is not None
    assert seen.accuracy < seen.predicted


def test_what_is_said_last_of_a_trace_counts() -> None:
    drift = Drift()
    for outcome in (0.0, 1.0):
        drift.observed("trace-1", decision(0.8), outcome)
    seen = drift.snapshot()
    assert (seen.observed, seen.predicted, seen.accuracy) == (1, 0.8, 1.0)


def test_only_the_last_answers_are_looked_at() -> None:
    drift = Drift()
    for place in range(2 * WINDOW):
        drift.observed(f"trace-{place}", decision(0.5), float(place >= WINDOW))
    seen = drift.snapshot()
    assert (seen.observed, seen.accuracy) == (WINDOW, 1.0)


@pytest.mark.parametrize("made", [None, {}, decision(None)])
def test_an_answer_of_which_nothing_was_predicted_tells_nothing(made: dict[str, Any] | None) -> None:
    drift = Drift()
    drift.observed("trace-1", made, 1.0)
    assert drift.snapshot().observed == 0


def test_another_population_rings() -> None:
    rng, drift = random.Random(3), Drift()
    for place in range(REFERENCE + 300):
        drift.decided(decision(rng.betavariate(5, 2) if place < REFERENCE + 100 else rng.betavariate(1, 4)))
    seen = drift.snapshot()
    assert seen.alarms == ("population",)
    assert seen.psi is not None
    assert seen.psi > 0.25


def test_the_same_population_does_not() -> None:
    for seed in range(50):
        rng, drift = random.Random(seed), Drift()
        for _ in range(REFERENCE + WINDOW):
            predicted = rng.betavariate(4, 2)
            drift.decided(decision(predicted, min(1.0, predicted + 0.1 + rng.gauss(0, 0.1))))
        assert not drift.snapshot().alarm


@pytest.mark.parametrize(("said", "alarms"), [(0, ("agreement",)), (LEAST, ())])
def test_votes_that_agree_less_ring_where_nobody_says_anything(said: int, alarms: tuple[str, ...]) -> None:
    rng, drift = random.Random(5), Drift()
    for place in range(REFERENCE + 200):
        predicted = rng.uniform(0.4, 0.6)
        drift.decided(decision(predicted, predicted + (0.2 if place < REFERENCE else -0.1)))
    for place in range(said):
        drift.observed(f"trace-{place}", decision(0.5), float(place % 2))
    assert drift.snapshot().alarms == alarms


def test_the_calibration_error_is_that_of_the_bins() -> None:
    pairs = [Pair(0.9, 1.0), Pair(0.9, 0.0), Pair(0.1, 0.0), Pair(0.3, 1.0)]
    assert calibration_error(pairs) == pytest.approx((0.8 + 0.1 + 0.7) / 4)
    assert calibration_error([Pair(1.0, 1.0), Pair(0.0, 0.0)]) == 0.0
    assert chance_error([Pair(1.0, 1.0)]) == 0.0


def test_chance_gives_as_much_error_as_is_expected() -> None:
    errors, expected = [], 0.0
    for seed in range(200):
        rng = random.Random(seed)
        predictions = [random.Random(place).uniform(0, 1) for place in range(200)]
        pairs = [Pair(p, float(rng.random() < p)) for p in predictions]
        errors.append(calibration_error(pairs))
        expected = chance_error(pairs)
    assert sum(errors) / len(errors) == pytest.approx(expected, rel=0.1)


def test_a_population_is_as_stable_as_it_is_the_same() -> None:
    pairs = [Pair(place / 100, 0.0) for place in range(100)]
    assert stability(pairs, pairs) == 0.0
    assert stability(pairs, pairs[:50]) > 1.0
