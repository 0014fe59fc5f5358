"""Features of a pilot by hand, the model that reads them, and what stands in for one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.allocation.difficulty import (
    FEATURES,
    SCORE_FEATURES,
    Attempt,
    Difficulty,
    Isotonic,
    attempts_of,
    beta_below,
    beta_quantile,
    estimate,
    features,
)
from strategies.core.contracts import Candidate, Chunk, FinishReason, Sample, TokenLogprob


def attempt(key: str | None, tokens: int = 10, truncated: bool = False, **told: float | None) -> Attempt:
    return Attempt(key, tokens, truncated, **told)


def model(**changed: object) -> Difficulty:
    fields = {
        "features": ("share", "unparsed"),
        "mean": (0.5, 0.0),
        "scale": (0.25, 1.0),
        "coefficients": (2.0, -1.0),
        "intercept": 0.5,
        "isotonic": Isotonic((0.0, 1.0), (0.0, 1.0)),
        "ece": 0.02,
        "problems": 100,
    }
    return Difficulty(**{**fields, **changed})  # type: ignore[arg-type]


def test_the_features_of_a_pilot_without_scores() -> None:
    told = features([attempt("7", 8), attempt("7", 12), attempt("9", 10), attempt(None, 10, truncated=True)])
    assert tuple(told) == FEATURES
    assert told["share"] == 0.5
    assert told["clusters"] == 0.5
    assert told["entropy"] == pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert (told["unparsed"], told["truncated"]) == (0.25, 0.25)
    assert told["length"] == pytest.approx(math.log(10))
    assert told["confidence"] == 0
    assert {told[name] for name in SCORE_FEATURES} == {0.5}


def test_the_features_of_scores_and_logprobs() -> None:
    told = features(
        [
            attempt("7", logprob=-0.1, score=0.9, min_step=0.6),
            attempt("8", logprob=-0.3, score=0.5, min_step=0.2),
            attempt("8"),
        ]
    )
    assert told["confidence"] == pytest.approx(-0.2)
    assert told["score_mean"] == pytest.approx(0.7)
    assert told["score_max"] == 0.9
    assert told["score_std"] == pytest.approx(0.2)
    assert told["score_min_step"] == pytest.approx(0.4)


def test_no_votes_have_no_share() -> None:
    told = features([attempt(None), attempt(None)])
    assert (told["share"], told["clusters"], told["entropy"], told["unparsed"]) == (0, 0, 0, 1)


def test_nothing_has_no_features() -> None:
    with pytest.raises(ValueError, match="no attempts"):
        features([])


def candidate(text: str, reason: FinishReason, score: float | None = None) -> Candidate:
    logprobs = (TokenLogprob("a", -1.0), TokenLogprob("b", -2.0))
    chunks = [Chunk(0, text, completion_tokens=2, logprobs=logprobs, finish_reason=reason)]
    return Candidate(Sample(chunks), score=score, step_scores=None if score is None else (score, 1.0))


def test_failed_candidates_are_no_attempts() -> None:
    candidates = [candidate("x", "eos", 0.25), candidate("", "error"), candidate("y", "length")]
    assert attempts_of(candidates, ["1", None, "2"]) == [
        Attempt("1", 2, truncated=False, logprob=-1.5, score=0.25, min_step=0.25),
        Attempt("2", 2, truncated=True, logprob=-1.5),
    ]


def test_an_isotonic_function_is_straight_between_its_points_and_level_beyond() -> None:
    line = Isotonic((0.2, 0.4, 0.4, 0.8), (0.1, 0.3, 0.5, 0.6))
    assert [line(x) for x in (0.0, 0.2, 0.8, 1.0)] == [0.1, 0.1, 0.6, 0.6]
    assert line(0.3) == pytest.approx(0.2)
    assert line(0.6) == pytest.approx(0.55)


def test_the_model_is_a_calibrated_logistic_regression() -> None:
    values = features([attempt("7"), attempt("7"), attempt("7"), attempt(None)])
    logit = 2 * (0.75 - 0.5) / 0.25 - 1 * 0.25 + 0.5
    assert model().probability(values) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert model(isotonic=Isotonic((0.0, 1.0), (0.2, 0.2))).probability(values) == 0.2
    assert model(intercept=-1000.0).probability(values) == 0
    assert model(intercept=1000.0).probability(values) == 1


def test_it_says_what_it_has_to_be_told() -> None:
    assert not model().needs_scores
    assert not model().needs_logprobs
    assert model(features=("score_max", "share")).needs_scores
    assert model(features=("confidence", "share")).needs_logprobs
    assert not model(features=("confidence", "score_max"), coefficients=(0.0, 0.0)).needs_scores


@pytest.mark.parametrize(
    ("votes", "p"), [("7777", 1.0), ("7778", 0.5625), ("7789", 0.25), ("7788", 0.25), ("6789", 0.0625)]
)
def test_without_a_model_the_votes_tell(votes: str, p: float) -> None:
    known = estimate([attempt(vote) for vote in votes], None, 4)
    assert (known.p, known.source) == (p, "votes")
    assert 0 <= known.low <= p <= known.high <= 1


def test_where_nothing_votes_the_scores_tell() -> None:
    known = estimate([attempt(None, score=0.2), attempt(None, score=0.4)], None, 4)
    assert (known.p, known.source) == (pytest.approx(0.3), "scores")
    assert estimate([attempt(None)], None, 4).p == 0
    with pytest.raises(ValueError, match="no attempts"):
        estimate([], None, 4)


def test_a_model_that_needs_scores_is_not_asked_without_them() -> None:
    needy = model(features=("score_mean", "share"))
    assert estimate([attempt("7")], needy, 4).source == "votes"
    assert estimate([attempt("7", score=0.5)], needy, 4).source == "model"
    assert estimate([attempt("7")], model(), 4).source == "model"
    # What was drawn later and not scored does not blur what the pilot says.
    scored = [attempt("7", score=0.1), attempt("8", score=0.3)]
    assert estimate([*scored, attempt("7"), attempt("7")], needy, 2).p == estimate(scored, needy, 2).p


def test_what_is_drawn_later_counts_as_further_pilots() -> None:
    attempts = [attempt(vote) for vote in "7778" + "7879" + "12"]
    assert estimate(attempts, None, 4).p == pytest.approx((0.5625 + 0.25) / 2)
    pilots = [features(attempts[i : i + 4]) for i in (0, 4)]
    assert estimate(attempts, model(), 4).p == pytest.approx(sum(map(model().probability, pilots)) / 2)


def test_more_samples_make_it_surer() -> None:
    few, many = (estimate([attempt("7"), attempt("8")] * n, None, 4) for n in (2, 20))
    assert few.p == many.p
    assert few.high - few.low > 2 * (many.high - many.low)


@pytest.mark.parametrize(
    ("q", "a", "b", "x"),
    [(0.05, 2, 3, 0.0976115), (0.5, 0.5, 0.5, 0.5), (0.95, 4.5, 0.5, 0.9995383), (0.05, 0.5, 64.5, 0.0000308)],
)
def test_quantiles_of_beta_distributions(q: float, a: float, b: float, x: float) -> None:
    assert beta_quantile(q, a, b) == pytest.approx(x, abs=2e-6)


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
def test_whole_betas_are_binomial_sums(x: float, a: int, b: int) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert beta_below(x, a, b) == pytest.approx(tail, abs=1e-9)
