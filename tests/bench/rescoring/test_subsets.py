"""The estimates against the server's own vote over all subsets in all orders, and against closed forms."""

import math
from itertools import combinations, permutations
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.rescoring.pools import Pool
from bench.rescoring.subsets import DRAWS, MEASURES, Measure, expected
from bench.simulation.closed_forms import majority_accuracy
from strategies.answers import vote
from strategies.core.contracts import Candidate, Chunk, FinishReason, Sample

ERROR = 4 * 0.5 / math.sqrt(DRAWS)
"""What a drawn estimate is surely within of the mean over all arrangements."""
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0, -0.5)
"""Few, so that there are ties."""


def candidate(answer: str | None, score: float | None = None, end: FinishReason = "stop", text: str = "") -> Candidate:
    return Candidate(Sample([Chunk(0, text, finish_reason=end)]), answer, None, score)


def pool(*samples: tuple[str | None, float | None], right: str = "A") -> Pool:
    """Samples by answer and score; those that answer `right` are right."""
    answers = [answer for answer, _ in samples]
    return Pool(tuple(candidate(*s) for s in samples), tuple(answers), tuple(answer == right for answer in answers))


def of_answers(answers: str) -> Pool:
    return pool(*((answer, 0.5) for answer in answers))


def returned_right(samples: Pool, chosen: tuple[int, ...], measure: Measure) -> bool:
    if measure == "pass":
        return any(samples.correct[i] for i in chosen)
    outcome = vote([samples.candidates[i] for i in chosen], [samples.keys[i] for i in chosen], measure)
    return samples.correct[chosen[outcome.ranking[0]]]


def brute_force(samples: Pool, measure: Measure, k: int) -> float:
    orders = list(permutations(range(samples.n), k))
    return sum(returned_right(samples, order, measure) for order in orders) / len(orders)


@st.composite
def pools(draw: st.DrawFn, scored: bool = True) -> Pool:
    """Up to five samples of three answers: some without one, cut short or failed, some graded apart from their key."""
    candidates, correct = [], []
    scores = st.sampled_from(SCORES) if scored else st.none()
    for _ in range(draw(st.integers(1, 5))):
        end: FinishReason = draw(st.sampled_from(["stop", "stop", "stop", "length", "content_filter", "error"]))
        answer = None if end == "error" else draw(st.sampled_from(["A", "A", "B", "C", None]))
        candidates.append(candidate(answer, draw(scores), end, draw(st.sampled_from(["", "long"]))))
        correct.append(answer is not None and draw(st.sampled_from([answer == "A", answer == "A", True, False])))
    return Pool(tuple(candidates), tuple(c.answer for c in candidates), tuple(correct))


@given(pools())
@settings(deadline=None, max_examples=150)
def test_an_estimate_is_the_mean_over_all_subsets_in_all_orders(samples: Pool) -> None:
    for measure in MEASURES:
        for k in range(1, samples.n + 1):
            estimate = expected(samples, measure, k)
            assert estimate.all_subsets
            assert estimate.value == pytest.approx(brute_force(samples, measure, k), abs=1e-9), (measure, k)


@given(pools(scored=False))
@settings(deadline=None, max_examples=50)
def test_a_majority_needs_no_scores(samples: Pool) -> None:
    for k in range(1, samples.n + 1):
        assert expected(samples, "majority", k).value == pytest.approx(brute_force(samples, "majority", k), abs=1e-9)


@given(pools(), st.integers(1, 5))
@settings(deadline=None, max_examples=100)
def test_no_selector_beats_pass_and_one_sample_is_one_sample(samples: Pool, k: int) -> None:
    k = min(k, samples.n)
    values = {measure: expected(samples, measure, k).value for measure in MEASURES}
    assert all(-1e-9 <= value <= values["pass"] + 1e-9 for value in values.values())
    first = {measure: expected(samples, measure, 1).value for measure in MEASURES}
    assert list(first.values()) == pytest.approx([first["pass"]] * len(first))


@given(st.permutations(range(5)))
@settings(deadline=None, max_examples=30)
def test_the_order_in_which_samples_are_stored_does_not_matter(order: list[int]) -> None:
    samples = [("A", 0.3), ("A", 0.1), ("B", 0.3), ("B", 0.9), (None, 0.9)]
    for measure in MEASURES:
        for k in (2, 3, 5):
            stored = expected(pool(*samples), measure, k).value
            assert expected(pool(*(samples[i] for i in order)), measure, k).value == pytest.approx(stored)


@pytest.mark.parametrize("k", range(1, 9))
def test_pass_at_k_is_the_unbiased_product(k: int) -> None:
    n, right = 8, 3
    product = 1 - math.prod(1 - k / i for i in range(n - right + 1, n + 1))
    assert expected(of_answers("AAABCDEF"), "pass", k).value == pytest.approx(product)


@pytest.mark.parametrize(("gold", "wrong", "k"), [(0.5, (0.5,), 3), (0.4, (0.3, 0.3), 4), (0.25, (0.5, 0.25), 5)])
def test_a_majority_of_k_of_n_is_unbiased_for_a_majority_of_k(gold: float, wrong: tuple[float, ...], k: int) -> None:
    n = 5
    names, chances = "ABC"[: 1 + len(wrong)], (gold, *wrong)
    mean = 0.0
    for counts in _splits(n, len(names)):
        chance = math.factorial(n) * math.prod(p**c / math.factorial(c) for p, c in zip(chances, counts, strict=True))
        answers = "".join(name * c for name, c in zip(names, counts, strict=True))
        mean += chance * expected(of_answers(answers), "majority", k).value
    assert mean == pytest.approx(majority_accuracy(gold, wrong, k))


def _splits(n: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(n,)]
    return [(first, *rest) for first in range(n + 1) for rest in _splits(n - first, parts - 1)]


def test_the_best_of_k_is_the_best_ranked_that_is_drawn() -> None:
    samples = pool(("B", 0.9), ("A", 0.8), ("A", 0.7), ("B", 0.6), ("A", 0.5))
    right = [samples.correct[min(chosen)] for chosen in combinations(range(5), 3)]
    assert expected(samples, "best", 3).value == pytest.approx(sum(right) / len(right))


def test_samples_that_are_alike_are_seen_first_equally_often() -> None:
    assert expected(of_answers("AB"), "majority", 2).value == pytest.approx(1 / 2)
    assert expected(of_answers("ABBBB"), "majority", 1).value == pytest.approx(1 / 5)
    assert expected(pool(("A", 0.5), ("B", 0.5), ("C", 0.5)), "weighted", 3).value == pytest.approx(1 / 3)
    assert 0 < expected(of_answers("AAAAAAAABBBBBBBB"), "majority", 16).value < 1


@pytest.mark.parametrize("measure", MEASURES)
def test_every_sample_of_a_large_pool_takes_part(measure: Measure) -> None:
    """With unequal scores the best of 8 of 16 is a known share, and one sample of many is what it is."""
    samples = pool(*(("A" if i % 2 else "B", i / 16) for i in range(16)))
    known = sum(math.comb(i, 7) for i in range(1, 16, 2)) / math.comb(16, 8)
    estimates = {"best": known, "pass": 1 - 1 / math.comb(16, 8)}
    if measure in estimates:
        assert expected(samples, measure, 8, draws=1000).value == pytest.approx(estimates[measure], abs=0.07)
    assert expected(samples, measure, 1).value == 1 / 2


def test_too_many_subsets_are_drawn_and_repeat_with_their_seed() -> None:
    samples = pool(*((name, i % 5 / 5) for i, name in enumerate("A" * 10 + "B" * 12)))
    drawn = expected(samples, "weighted", 11)
    assert not drawn.all_subsets
    assert expected(samples, "weighted", 11) == drawn
    assert len({expected(samples, "weighted", 11, seed=str(seed)).value for seed in range(5)}) > 1
    more = expected(samples, "weighted", 11, draws=5000)
    assert drawn.value == pytest.approx(more.value, abs=ERROR)


@pytest.mark.parametrize("measure", ["majority", "best", "weighted"])
def test_drawn_votes_agree_with_those_over_all_arrangements(measure: Measure) -> None:
    samples = pool(*((answer, i % 3 / 3) for i, answer in enumerate("AABBAC")))
    for k in range(1, 7):
        exact = brute_force(samples, measure, k)
        assert expected(samples, measure, k).value == pytest.approx(exact, abs=ERROR), k
        assert expected(samples, measure, k, draws=100).value == pytest.approx(exact, abs=0.2), k
        assert expected(samples, measure, k, draws=1000).value == pytest.approx(exact), k


def test_more_than_a_thousand_samples_do_not_overflow() -> None:
    samples = of_answers("A" * 600 + "B" * 600)
    assert expected(samples, "pass", 600).value == pytest.approx(1)
    assert expected(samples, "majority", 4).value == pytest.approx(0.5, abs=ERROR)
    assert expected(samples, "best", 4).value == pytest.approx(0.5, abs=ERROR)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_certain_is_not_almost_certain(measure: Measure) -> None:
    samples = pool(*(("A", i / 23) for i in range(13)), *((None, i / 23) for i in range(3)))
    finished = Pool(samples.candidates[:13], samples.keys[:13], samples.correct[:13])
    assert all(expected(finished, measure, k).value == 1 for k in range(1, 14))
    wins = pool(*(("A", 0.9) for _ in range(9)), *(("B", 0.1) for _ in range(4)))
    assert expected(wins, measure, 13).value == expected(wins, measure, 9).value == 1


@pytest.mark.parametrize("k", [0, 4])
def test_k_is_refused_outside_the_pool(k: int) -> None:
    with pytest.raises(ValueError, match=r"k is 1 to 3.*got"):
        expected(of_answers("ABC"), "pass", k)


@pytest.mark.parametrize("measure", ["best", "weighted"])
def test_a_missing_score_is_refused(measure: Measure) -> None:
    with pytest.raises(ValueError, match="sample 1 has no score"):
        expected(pool(("A", 0.5), ("B", None)), measure, 1)


def test_a_pool_whose_parts_do_not_fit_is_refused() -> None:
    one = candidate("A")
    with pytest.raises(ValueError, match="as many keys"):
        Pool((one,), ("A", "B"), (True,))
    with pytest.raises(ValueError, match="no answer"):
        Pool((one,), (None,), (False,))


def test_every_measure_is_known() -> None:
    assert get_args(Measure) == MEASURES
