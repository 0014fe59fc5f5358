"""What votes gain and cost at a price, by drawing them, and that the price is the one that spends the budget."""

import random

import pytest

from strategies.allocation.shared_budget import settled
from strategies.allocation.vote_value import CONFIDENCE, MOST, Asking, Vote, bought, doublings, price

SPLIT, LEANING, AGREED = Vote(0.25, 4, 2, 2), Vote(0.5625, 4, 3, 1), Vote(1.0, 4, 4, 0)


@pytest.mark.parametrize(("most", "numbers"), [(-3, []), (0, []), (1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_doublings_end_with_the_most(most: int, numbers: list[int]) -> None:
    assert doublings(most) == numbers


def test_what_few_of_a_few_samples_say_may_be_wrong_however_often_they_say_it() -> None:
    assert Vote(0.0625, 4, 2, 1).reached(8) < 0.4 * settled(2, 1, 8)
    assert Vote(0.5625, 4, 2, 1).reached(8) == settled(2, 1, 8)


def test_a_vote_that_is_split_gains_more_than_one_that_leans() -> None:
    assert SPLIT.rate(8) > LEANING.rate(8) > AGREED.rate(8) >= 0 == SPLIT.rate(0)


def drawn(vote: Vote, least: float, rng: random.Random) -> int:
    """Votes of one question whose answers have a share that such a pilot may have come from."""
    share = rng.betavariate(vote.first + 1, vote.second + 1)
    first, second, samples = vote.first, vote.second, vote.samples
    while samples < MOST and settled(*sorted((first, second))[::-1]) < CONFIDENCE:
        now = Vote(vote.p, samples, max(first, second), min(first, second))
        if now.rate(MOST - samples) < least:
            break
        gained = sum(rng.random() < share for _ in range(samples))
        first, second, samples = first + gained, second + samples - gained, 2 * samples
    return samples - vote.samples


@pytest.mark.parametrize("vote", [SPLIT, LEANING])
@pytest.mark.parametrize("least", [0.0, 0.01])
def test_so_many_votes_are_bought_on_the_mean(vote: Vote, least: float) -> None:
    rng = random.Random(7)
    seen = [drawn(vote, least, rng) for _ in range(4000)]
    assert bought(vote, least) == pytest.approx(sum(seen) / len(seen), rel=0.05, abs=0.1)


def test_nothing_is_bought_that_is_settled_or_too_dear() -> None:
    assert bought(AGREED, 0.0) == bought(SPLIT, 0.9) == 0.0
    assert bought(SPLIT, 0.08) < bought(SPLIT, 0.05) < bought(SPLIT, 0.0)


def test_the_price_is_the_lowest_that_the_budget_bears() -> None:
    questions = [Asking(SPLIT, 100), Asking(LEANING, 50), Asking(AGREED, 200)] * 5

    def spent(gain: float) -> float:
        return sum(question.tokens * bought(question.vote, gain * question.tokens) for question in questions)

    everything = spent(0.0)
    assert price(questions, everything) == price([], 100) == 0.0
    last = 0.0
    for share in (0.8, 0.5, 0.2, 0.0):
        found = price(questions, share * everything)
        assert found >= last
        last = found
        # Prices are told apart by a quarter of a doubling.
        assert spent(1.2 * found) <= share * everything <= spent(0.6 * found)
